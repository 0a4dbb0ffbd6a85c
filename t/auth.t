#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Who calls: where keys may be, what is refused and how, what of it is seen,
# and that no other module of nginx opens a way around.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Digest::SHA;
use JSON::PP;
use MIME::Base64 qw(encode_base64);
use Test::More;
use Time::HiRes qw(sleep time);

use AI::Kit;
use AI::Gateway;
use AI::Keys;
use AI::Provider;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

my $p = provider();
my $url = $p->url;

my $keys = AI::Keys->new;
my $now = time();

my $alice = $keys->add('alice', tenant => 'acme', user => 'alice@acme',
                       team => 'search', plan => 'gold',
                       scopes => [ 'chat:use', 'admin' ],
                       metadata => { 'Cost-Center' => 'c-17', n => 42,
                                     nested => { a => 1 }, none => undef,
                                     odd => "a\r\nX-Evil: 1",
                                     quote => "\"\x{e9}\"" });
my $bob = $keys->add('bob');
my $canary = 'sk-CANARY-7f3a9d51c2';
my $off = $keys->add('off', disabled => JSON::PP::true);
my $old = $keys->add('old', expires => int($now - 100));
my $soon = $keys->add('soon', not_before => int($now + 3600));
my $gone = $keys->add('gone');
my $foreign = $keys->add('foreign', key => 'sk-imported-0123456789');
my $unknown = $keys->fresh;
my $typo = $bob =~ s/(.)$/$1 eq 'a' ? 'b' : 'a'/er;

$keys->{record}{cert} = { id => 'cert', tenant => 'mtls',
                          identities => [ 'CN=carol,O=Acme' ] };
$keys->{record}{dave} = { id => 'dave', tenant => 'basic' };
$keys->{record}{erin} = { id => 'erin', disabled => JSON::PP::true };
push @{ $keys->{order} }, qw(cert dave erin);

my $gw = gateway(<<"END", files => {
    ai_data %%DIR%% interval=50ms;
    ai_auth_log rate=100r/s;

    ai_provider p { dialect openai; endpoint $url; key upstream-key; }
    ai_provider h { dialect openai; endpoint $url; key upstream-key;
                    header X-Tenant \$ai_tenant; header X-Odd \$ai_key_meta_odd; }

    ai_model m { target p; }
    ai_model h { target h/x; }

    map \$http_x_cert \$cert { default \$http_x_cert; }
    map \$ai_tenant \$room   { default ""; acme "room-1"; }

    limit_req_zone \$binary_remote_addr zone=one:1m rate=1r/m;

    log_format who escape=json '{"uri":"\$request_uri","status":"\$status",'
        '"request":"\$request","args":"\$args","arg_key":"\$arg_key",'
        '"auth":"\$ai_auth","id":"\$ai_key_id","tenant":"\$ai_tenant",'
        '"user":"\$ai_user","team":"\$ai_team","plan":"\$ai_plan",'
        '"key_plan":"\$ai_key_plan","scopes":"\$ai_scopes",'
        '"reason":"\$ai_deny_reason","cc":"\$ai_key_meta_cost_center",'
        '"n":"\$ai_key_meta_n","nested":"\$ai_key_meta_nested",'
        '"none":"\$ai_key_meta_none","odd":"\$ai_key_meta_odd",'
        '"quote":"\$ai_key_meta_Quote","room":"\$room"}';

    access_log %%DIR%%/who.log who;

    server {
        listen 127.0.0.1:%%PORT_id%%;
        access_log off;
        add_header X-Identity \$http_x_who;
        if (\$http_x_pass) { return 204; }
        return 401;
    }
END
    'keys.json' => $keys->text,
    'revoked.json' => qq({"key":"gone"}\n),
    'htpasswd' => "dave:{PLAIN}secret\nfrank:{PLAIN}secret\n",
}, server => <<'SERVER');
        auth_delay 0;

        location /v1/ { ai_auth key; ai_pass model direct=on; }
        location /p/  { ai_auth key; ai_pass p; }

        location = /page { ai_auth key "realm=the page"; stub_status; }
        location = /open { ai_auth off; stub_status; }
        location = /none { stub_status; }

        location = /early {
            ai_auth key;
            add_header X-Key "$arg_key" always;
            return 200 "early $args\n";
        }

        # other modules of the access phase

        location /any/ {
            satisfy any;
            allow 127.0.0.1;
            deny  all;
            ai_auth key;
            ai_pass model;
        }

        location /anydeny/ {
            satisfy any;
            deny all;
            ai_auth key;
            ai_pass model;
        }

        location /anyalone/ { satisfy any; ai_auth key; ai_pass model; }

        location /alldeny/ { deny all; ai_auth key; ai_pass model; }

        location = /anypage {
            satisfy any; allow 127.0.0.1; deny all;
            ai_auth key; stub_status;
        }

        location /sub/ {
            auth_request /check;
            ai_auth key;
            ai_pass model;
        }

        location /anysub/ {
            satisfy any;
            auth_request /check;
            ai_auth key;
            ai_pass model;
        }

        location = /check {
            internal;
            if ($http_x_pass) { return 204; }
            return 403;
        }

        location /limited/ {
            limit_req zone=one;
            ai_auth key;
            ai_pass model;
        }

        # identities that nginx has verified

        location /cert/ { ai_auth variable=$cert; ai_pass model; }
        location /both/ { ai_auth key variable=$cert; ai_pass model; }

        location /anycert/ {
            satisfy any;
            deny all;
            ai_auth variable=$cert;
            ai_pass model;
        }

        location /basic/ {
            auth_basic "who";
            auth_basic_user_file htpasswd;
            ai_auth variable=$remote_user;
            ai_pass model;
        }

        location /subid/ {
            auth_request /id;
            auth_request_set $who $upstream_http_x_identity;
            ai_auth variable=$who;
            ai_pass model;
        }

        location /anysubid/ {
            satisfy any;
            auth_request /id;
            auth_request_set $who $upstream_http_x_identity;
            ai_auth variable=$who;
            ai_pass model;
        }

        location = /id {
            internal;
            proxy_pass http://127.0.0.1:%%PORT_id%%;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
        }

        # internal redirects

        location /redirect/ {
            ai_auth key;
            error_page 403 404 = @other;
            ai_pass p;
            limit_except POST { deny all; }
        }

        location @other { ai_auth off; ai_pass p; }

        location /dropped/ { ai_auth key; rewrite ^ /none? last; }
        location /to-key/ { rewrite ^/to-key(/.*)$ /p$1 last; }
        location /try/    { try_files /nothing /p/files; }
        location /closed/ {
            ai_auth off;
            error_page 403 /p/files;
            deny all;
        }

        location /twice/ {
            ai_auth key;
            error_page 401 /again;
            ai_pass model;
        }

        location = /again { ai_auth key; ai_pass model; }

        location = /own401 {
            ai_auth key;
            error_page 401 = /none;
            stub_status;
        }
SERVER

my $c = $gw->client;
my $n = 0;

# a request, and what the log says of it

sub ask {
    my ($path, %opt) = @_;
    my $tag = 'tag=' . ++$n;
    my $body = exists $opt{body} ? delete $opt{body} : chat('m');

    $path .= ($path =~ /\?/ ? '&' : '?') . $tag;

    my $r = $opt{get} ? $c->get($path, %opt) : $c->post($path, $body, %opt);
    my $line = $gw->wait_log(qr/\b$tag\b/, 'who.log') // '{}';

    return ($r, decode_json($line));
}

sub status {
    my ($r) = ask(@_);
    return $r->{status};
}

sub bearer { return (headers => [ Authorization => "Bearer $_[0]" ]) }

my $chat = '/v1/chat/completions';

# where a key may be

my ($r, $log) = ask($chat, bearer($alice));

is($r->{status}, 200, 'Authorization');
is("$log->{auth} $log->{id} $log->{tenant} $log->{user} $log->{team} "
   . "$log->{plan} $log->{key_plan}",
   'key alice acme alice@acme search gold gold', '... who it is');
is($log->{scopes}, 'chat:use admin', '... scopes');
is("$log->{cc} $log->{n} $log->{nested}", 'c-17 42 {"a":1}',
   '... metadata');
is("$log->{none}|$log->{reason}", '|', '... what is not there');
is($log->{odd}, 'aX-Evil: 1', '... no control characters');
is($log->{quote}, "\"\x{e9}\"", '... quotes and letters');
is($log->{room}, 'room-1', '... used in a map');

my $upstream = ($p->log)[-1];
is($upstream->{headers}{authorization}, 'Bearer upstream-key',
   '... the provider gets its own key');

for my $name ('x-api-key', 'api-key', 'x-goog-api-key', 'X-API-KEY',
              'Api-Key')
{
    ($r, $log) = ask($chat, headers => [ $name => $bob ]);
    is("$r->{status} $log->{id}", '200 bob', $name);
}

for my $value ("bearer $bob", "BEARER   $bob", "Bearer\t$bob \t") {
    is(status($chat, headers => [ Authorization => $value ]), 200,
       'scheme and white space: ' . ($value =~ s/\Q$bob\E/KEY/r));
}

is(status($chat, headers => [ Authorization => "Bearer$bob" ]), 401,
   'no space');
is(status($chat, headers => [ Authorization => $bob ]), 401, 'no scheme');
is(status($chat, headers => [ Authorization => "Basic $bob" ]), 401,
   'another scheme');
is(status($chat, headers => [ Authorization => 'Bearer' ]), 401, 'no key');
is(status($chat, headers => [ Authorization => 'Bearer ',
                              'x-api-key' => $bob ]), 200,
   'an empty one is none');
is(status($chat, headers => [ Authorization => 'Basic eDp5',
                              'x-api-key' => $bob ]), 200,
   'Basic is for others');

is(status($chat, headers => [ Authorization => "Bearer $bob",
                              'x-api-key' => $bob, 'api-key' => $bob ]), 200,
   'the same key twice');

($r, $log) = ask($chat, headers => [ Authorization => "Bearer $bob",
                                     'x-api-key' => $alice ]);
is("$r->{status} $log->{reason} $log->{id}", '401 conflict ',
   'two different keys');
like($r->{headers}{'www-authenticate'}, qr/error="invalid_request"/,
     '... said so');
is(status($chat, headers => [ 'x-api-key' => $bob, 'x-api-key' => $alice ]),
   401, '... in one place');
is(status($chat, headers => [ Authorization => "Bearer $bob",
                              'x-api-key' => 'sk-other' ]), 401,
   '... of which one is right');

is(status($chat, bearer($foreign)), 200, 'a key of another form');

# in the query

for my $query ("key=$bob", "a=1&key=$bob&b=2", "key=$bob&key=$bob",
               "%6bey=$bob", "a=1&%4b=2&k%65y=$bob", "&&key=$bob",
               'key=' . join('', map { sprintf '%%%02x', ord } split //, $bob))
{
    ($r, $log) = ask("$chat?$query", body => chat('m'));
    my $show = $query =~ s/\Q$bob\E/KEY/gr;

    is("$r->{status} $log->{id}", '200 bob', "?$show");
    unlike($log->{args} . $log->{uri}, qr/k(e|%65)y=/,
           '... not in $args and $request_uri');
    is($log->{arg_key}, '', '... not in $arg_key');
    unlike($log->{request}, qr/\Q$bob\E|%61%69/, '... not in $request');
    like($log->{request}, qr/^POST .*tag=\d+ HTTP/, '... which is whole');
    like($log->{args}, qr/^(?:a=1&b=2&|a=1&%4b=2&|&&)?tag=\d+$/,
         '... the others stay');
}

is(status("$chat?key=$bob&key=$alice"), 401, 'two in a query');
is(status("$chat?key=$bob", bearer($alice)), 401, 'query and header');
is(status("$chat?key=$bob", bearer($bob)), 200, '... the same');
is(status("$chat?key="), 401, 'an empty one');
is(status("$chat?KEY=x"), 401, 'case counts');
is(status("$chat?monkey=x"), 401, 'the whole name counts');

$p->reset;
($r, $log) = ask("/p/files?a=1&key=$bob&b=2", get => 1);
$upstream = ($p->log)[-1];
like($upstream->{query}, qr/^a=1&b=2&tag=\d+$/, 'passed on without the key');
unlike(encode_json($upstream), qr/\Q$bob\E/, '... nowhere');

($r) = ask("/early?key=$bob&b=2", get => 1);
like($r->{body}, qr/^early b=2&tag/, 'before the rewrite module');
ok(!$r->{headers}{'x-key'}, '... $arg_key');

($r, $log) = ask("/dropped/?key=$bob", get => 1);
is($r->{status}, 200, 'arguments that are dropped');
unlike(encode_json($log), qr/\Q$bob\E/, '... are logged without the key');

# what is refused

my %texts;

for my $case ([ 'none', undef ], [ 'unknown', $unknown ],
              [ 'malformed', $typo ], [ 'malformed', 'aigw_' ],
              [ 'malformed', 'x' x 513 ], [ 'unknown', 'sk-else' ],
              [ 'unknown', "$foreign " . 'x' ],
              [ 'disabled', $off ], [ 'expired', $old ], [ 'not_yet', $soon ],
              [ 'revoked', $gone ])
{
    my ($reason, $key) = @$case;
    my @key = defined $key ? bearer($key) : ();

    ($r, $log) = ask($chat, @key);
    is($r->{status}, 401, "$reason: 401");
    is("$log->{reason} $log->{auth} $log->{id}$log->{tenant}",
       "$reason none ", '... reason, no identity');
    is($r->{headers}{'content-type'}, 'application/json', '... JSON');

    my $error = $r->json->{error};
    is("$error->{type} $error->{code}",
       'invalid_request_error invalid_api_key', '... as OpenAI has it');
    is($r->{headers}{'www-authenticate'},
       'Bearer realm="AI gateway"'
       . (defined $key ? ', error="invalid_token"' : ''),
       '... WWW-Authenticate');
    $texts{$reason} = $error->{message};

    ($r) = ask('/v1/messages', @key, body => { %{ chat('m') },
                                               max_tokens => 10 });
    is($r->{status}, 401, '... Anthropic');
    is($r->json->{error}{type}, 'authentication_error', '... type');
}

is(scalar keys %{ { map { $_ => 1 } @texts{qw(unknown malformed disabled
                                              revoked)} } },
   1, 'unknown, malformed, disabled and revoked look alike');
like($texts{unknown}, qr/incorrect API key/i, '... the usual words');
like($texts{expired}, qr/expired/, 'expired says so');
like($texts{not_yet}, qr/not valid yet/, 'so does not yet');
like($texts{none}, qr/Authorization: Bearer/, 'none says how to send one');

is(scalar(grep { $_->{path} !~ /files/ } $p->log),
   scalar(grep { ($_->{headers}{authorization} // '') eq
                 'Bearer upstream-key' && $_->{path} !~ /files/ } $p->log),
   'nobody else got through');

# the log of refusals

my @lines = grep { /ai auth: refused/ } split /\n/, $gw->error_log;

ok(scalar(grep { /\[notice\].*reason=disabled key=off / } @lines),
   'the id of a key that is known');
ok(scalar(grep { /reason=unknown key=- .*credential=[0-9a-f]{8} / } @lines),
   'the fingerprint of one that is not');
ok(scalar(grep { m{addr=127.0.0.1 method=POST uri=/v1/chat/completions} }
          @lines), 'where from, and what');

# other locations

is(status('/page', get => 1, bearer($bob)), 200, 'any location');
($r) = ask('/page', get => 1);
is($r->{status}, 401, '... without a key');
is($r->{headers}{'www-authenticate'}, 'Bearer realm="the page"', '... realm');
like($r->{headers}{'content-type'}, qr{text/html}, '... nginx\'s page');
is(status('/open', get => 1), 200, 'off');
is(status('/open', get => 1, bearer($unknown)), 200, '... whatever is sent');
($r, $log) = ask('/open', get => 1, bearer($bob));
is("$log->{auth} $log->{id}", 'off ', '... nobody is looked for');
is(status('/none', get => 1), 200, 'without a directive');

# before the body is read

for my $path ($chat, '/both/chat/completions', '/cert/chat/completions') {
    my $t = time();
    my $s = $c->open($path, 'x' x 100000, send => 0, timeout => 5,
                     headers => [ 'Expect' => '100-continue' ]);
    $s->finish;
    is($s->{status}, $path =~ /cert/ ? 401 : 401, "$path: without the body");
    cmp_ok(time() - $t, '<', 3, '... at once');
}

my $s = $c->open($chat, encode_json(chat('m')), send => 0, timeout => 5,
                 headers => [ 'Expect' => '100-continue',
                              Authorization => "Bearer $bob" ]);
ok($s, 'the right key');
$s->abort;

# satisfy

my $good = '/chat/completions';

($r, $log) = ask("/any$good");
is("$r->{status} $log->{auth} $log->{id}$log->{reason}", '200 none ',
   'satisfy any: nothing sent, the address is allowed');
ok(!$r->{headers}{'www-authenticate'}, '... no WWW-Authenticate');
($r, $log) = ask("/any$good", bearer($alice));
is("$r->{status} $log->{id}", '200 alice', '... a key is looked at');

for my $bad ($unknown, $off, $old, 'junk') {
    ($r, $log) = ask("/any$good", bearer($bad));
    is("$r->{status} $log->{id}", '401 ', '... a wrong key is refused');
    is($r->json->{error}{code}, 'invalid_api_key', '... in JSON');
}

is(status("/any$good?key=$bob&key=$alice"), 401, '... two keys');
is(status("/anydeny$good", bearer($bob)), 200, '... a key is enough');
($r, $log) = ask("/anydeny$good");
is("$r->{status} $log->{reason}", '401 none', '... nothing is not');
is(status("/anydeny$good", bearer($unknown)), 401, '... nor a wrong key');
is(status("/anyalone$good"), 401, '... alone');
is(status("/anyalone$good", bearer($bob)), 200, '... alone, with a key');
is(status('/anypage', get => 1), 200, '... another content');
is(status('/anypage', get => 1, bearer($unknown)), 401, '... a wrong key');

is(status("/alldeny$good", bearer($bob)), 403, 'satisfy all: address');
is(status("/alldeny$good"), 401, '... and key');

is(status("/sub$good", bearer($bob)), 403, 'auth_request refuses');
is(status("/sub$good", headers => [ 'X-Pass' => 1 ]), 401, '... or the key');
is(status("/sub$good", headers => [ 'X-Pass' => 1, 'x-api-key' => $bob ]),
   200, '... both agree');
is(status("/anysub$good", headers => [ 'X-Pass' => 1 ]), 200,
   'satisfy any: auth_request is enough');
is(status("/anysub$good", headers => [ 'X-Pass' => 1,
                                       'x-api-key' => $unknown ]), 401,
   '... but for a wrong key');
is(status("/anysub$good", bearer($bob)), 200, '... or a key');
is(status("/anysub$good"), 401, '... none');

is(status("/limited$good", bearer($bob)), 200, 'limit_req');
($r, $log) = ask("/limited$good?key=$bob");
is($r->{status}, 503, '... runs first');
unlike($log->{request} . $log->{uri}, qr/\Q$bob\E/, '... logs no key');

# variables

my @carol = (headers => [ 'X-Cert' => 'CN=carol,O=Acme' ]);

($r, $log) = ask("/cert$good", @carol);
is("$r->{status} $log->{auth} $log->{id} $log->{tenant}",
   '200 variable cert mtls', 'an identity');
($r, $log) = ask("/cert$good", headers => [ 'X-Cert' => 'dave' ]);
is("$r->{status} $log->{id}", '200 dave', '... by id');
($r, $log) = ask("/cert$good", headers => [ 'X-Cert' => 'mallory' ]);
is("$r->{status} $log->{reason}", '403 unknown', '... unknown');
is($r->json->{error}{code}, 'permission_denied', '... code');
($r, $log) = ask("/cert$good", headers => [ 'X-Cert' => 'erin' ]);
is("$r->{status} $log->{reason}", '403 disabled', '... disabled');
($r, $log) = ask("/cert$good");
is("$r->{status} $log->{reason}", '401 none', '... empty');
ok(!$r->{headers}{'www-authenticate'}, '... asks for no key');
is(status("/cert$good", bearer($bob)), 401, '... a key means nothing');

is(status("/both$good", @carol), 200, 'key or variable: variable');
($r, $log) = ask("/both$good", bearer($bob));
is("$r->{status} $log->{id}", '200 bob', '... key');
($r, $log) = ask("/both$good", headers => [ @{ $carol[1] },
                                            'x-api-key' => $bob ]);
is("$r->{status} $log->{id}", '200 bob', '... a key that is sent counts');
is(status("/both$good", headers => [ @{ $carol[1] },
                                     'x-api-key' => $unknown ]), 401,
   '... right or wrong');
is(status("/both$good"), 401, '... none');

is(status("/anycert$good", @carol), 200, 'satisfy any: variable');
is(status("/anycert$good"), 401, '... none');
is(status("/anycert$good", headers => [ 'X-Cert' => 'mallory' ]), 403,
   '... unknown');

sub basic {
    return (headers => [ Authorization => 'Basic '
                         . encode_base64("$_[0]:$_[1]", '') ]);
}

($r, $log) = ask("/basic$good", basic('dave', 'secret'));
is("$r->{status} $log->{id}", '200 dave', 'auth_basic');
($r, $log) = ask("/basic$good", basic('dave', 'wrong'));
is("$r->{status} $log->{id}", '401 ', '... wrong password');
($r, $log) = ask("/basic$good", basic('frank', 'secret'));
is("$r->{status} $log->{reason}", '403 unknown', '... without a record');
is(status("/basic$good"), 401, '... none');

my @sub = ('X-Pass' => 1, 'X-Who' => 'dave');

for my $path ("/subid$good", "/anysubid$good") {
    ($r, $log) = ask($path, headers => \@sub);
    is("$r->{status} $log->{id}", '200 dave', "$path: auth_request_set");
    ($r, $log) = ask($path, headers => [ 'X-Pass' => 1, 'X-Who' => 'x' ]);
    is("$r->{status} $log->{id}", '403 ', '... unknown');
    is(status($path, headers => [ 'X-Who' => 'dave' ]), 401, '... refused');
}

is(status("/subid$good", headers => [ 'X-Pass' => 1 ]), 401,
   'auth_request names nobody');

# internal redirects

($r, $log) = ask('/redirect/files', get => 1, bearer($alice));
is("$r->{status} $log->{id}", '200 alice',
   'to a location that asks nobody: who it was is known');
is(status('/redirect/files', get => 1), 401, '... none');
($r, $log) = ask("/to-key$good", bearer($bob));
is("$r->{status} $log->{id}", '200 bob', 'rewrite');
is(status("/to-key$good"), 401, '... none');
is(status("/to-key$good?key=$bob"), 200, '... with a key in the query');
is(status('/try/x', get => 1), 401, 'try_files');
is(status('/try/x', get => 1, bearer($bob)), 200, '... with a key');
is(status('/closed/x', get => 1), 401, 'error_page to a location with keys');
($r, $log) = ask('/closed/x', get => 1, bearer($bob));
is("$r->{status} $log->{id}", '403 bob', '... with one');
($r, $log) = ask("/twice$good");
is($r->{status}, 401, 'refused twice');
is(scalar(grep { /^www-authenticate/i } map { lc $_->[0] }
          @{ $r->{raw_headers} }) , 1, '... one WWW-Authenticate');
is(status('/own401', get => 1), 200, 'error_page 401 =');

# HTTP/2

SKIP: {
    my $curl = `curl --version 2>/dev/null`;
    skip 'curl has no HTTP/2', 4 if $curl !~ /HTTP2/;

    my $h2 = AI::Gateway->new(files => { 'keys.json' => $keys->text },
                              conf => <<"END");
events {}
http {
    ai_data %%DIR%%;
    ai_provider p { dialect openai; endpoint $url; key none; }
    log_format who '\$request \$status \$ai_key_id \$args \$request_uri';
    access_log %%DIR%%/access.log who;
    server {
        listen 127.0.0.1:%%PORT_0%% http2;
        location /v1/ { ai_auth key; ai_pass p; }
    }
}
END
    $h2->allow(qr/deprecated/);
    $h2->start;

    my $c2 = $h2->client;

    # without a body: nginx resets the stream of one that it does not read
    is($c2->h2('/v1/models')->{status}, 401, 'HTTP/2: none');
    is($c2->h2($chat, chat('m'), headers => [ 'x-api-key' => $bob ])
          ->{status}, 200, '... a header');
    is($c2->h2("$chat?a=1&key=$bob", chat('m'))->{status}, 200, '... query');
    ok($h2->wait_log(qr/200 bob a=1 /, 'access.log'), '... logged');
    unlike($h2->read_file('access.log') . $h2->error_log, qr/\Q$bob\E/,
           '... without the key');
    $h2->finish;
}

# a request that nginx itself cannot read has been shown before anything runs,
# all others are silent

my $all = join '', map { $gw->read_file($_) } 'error.log', 'who.log',
                                               'stderr.log';

for my $secret ($alice, $bob, $off, $old, $soon, $gone, $foreign, $unknown,
                $typo)
{
    unlike($all, qr/\Q$secret\E/, 'no credential in a log');
}

unlike(encode_json([ $p->log ]), qr/\Q$_\E/, 'nor sent to a provider')
    for $alice, $bob, $foreign;

# a header of a variable

$p->reset;
($r) = ask($chat, bearer($alice), body => chat('h'));
is($r->{status}, 200, 'variables in a header');
is(($p->log)[-1]{headers}{'x-tenant'}, 'acme', '... tenant');
is(($p->log)[-1]{headers}{'x-odd'}, 'aX-Evil: 1', '... nothing injected');

# files that change

sub soon {
    my ($want, $key) = @_;
    my $end = time() + 5 * ($ENV{TEST_AI_VALGRIND} ? 10 : 1);
    my $got;

    do {
        $got = $c->post($chat, chat('m'),
                        headers => [ 'x-api-key' => $key ])->{status};
        sleep 0.02 if $got != $want;
    } while ($got != $want && time() < $end);

    return $got;
}

$keys->{record}{bob}{disabled} = JSON::PP::true;
$keys->put($gw);
is(soon(401, $bob), 401, 'a key that is disabled is refused soon');
delete $keys->{record}{bob}{disabled};
$keys->put($gw);
is(soon(200, $bob), 200, '... and taken again');

# the log has a limit

my $before = () = $gw->error_log =~ /ai auth: refused: reason/g;
$c->post($chat, chat('m')) for 1 .. 600;
ok($gw->wait_log(qr/ai auth: refused: \d+ more were not logged/),
   'a flood is counted');
my $after = () = $gw->error_log =~ /ai auth: refused: reason/g;
cmp_ok($after - $before, '<', 500, '... not logged');

$gw->finish;

# a key or a token of one of several issuers

sub b64 { return encode_base64($_[0], '') =~ tr{+/}{-_}r =~ s/=+$//r }

sub token {
    my ($iss, $secret, %claims) = @_;
    my $text = b64('{"alg":"HS256","typ":"JWT"}') . '.'
               . b64(encode_json({ iss => $iss, sub => 'jo', aud => 'ai',
                                   exp => int(time() + 600), %claims }));

    return $text . '.' . b64(Digest::SHA::hmac_sha256($text, $secret));
}

my @secret = map { $_ x 32 } qw(a b);

$gw = gateway(<<"END", files => {
    ai_data %%DIR%%;
    ai_auth_log rate=1000r/s;

    ai_jwt_issuer one { issuer https://one; secret file:one; alg HS256;
                        audience ai; }
    ai_jwt_issuer two { issuer https://two; secret file:two; alg HS256;
                        audience ai; claim org \$ai_tenant; }

    ai_provider p { dialect openai; endpoint $url; key none; }

    log_format who escape=json '{"uri":"\$request_uri","auth":"\$ai_auth",'
        '"id":"\$ai_key_id","user":"\$ai_user","tenant":"\$ai_tenant",'
        '"reason":"\$ai_deny_reason","scopes":"\$ai_scopes"}';
    access_log %%DIR%%/who.log who;
END
    'keys.json' => $keys->text,
    one => "$secret[0]\n", two => "$secret[1]\n",
}, server => <<'SERVER');
        location /v1/   { ai_auth key jwt=one jwt=two; ai_pass p; }
        location /one/  { ai_auth jwt=one; ai_pass p; }
        location /key/  { ai_auth key; ai_pass p; }
        location /any/  { satisfy any; allow all; ai_auth jwt=one; ai_pass p; }
SERVER

$c = $gw->client;

for my $case ([ '/v1', token('https://one', $secret[0]),
                '200 jwt one:jo jo' ],
              [ '/v1', token('https://two', $secret[1], org => 'acme',
                             scope => 'a b'),
                '200 jwt two:jo jo acme a b' ],
              [ '/v1', $bob, '200 key bob' ],
              [ '/v1', token('https://one', $secret[1]),
                '401 none signature' ],
              [ '/v1', token('https://two', $secret[0]),
                '401 none signature' ],
              [ '/v1', token('https://three', $secret[0]),
                '401 none claims' ],
              [ '/v1', token('https://one', $secret[0], aud => 'x'),
                '401 none claims' ],
              [ '/v1', token('https://one', $secret[0],
                             exp => int($now - 900)), '401 none expired' ],
              [ '/v1', token('https://one', $secret[0],
                             nbf => int($now + 900)), '401 none not_yet' ],
              [ '/v1', 'a.b.c', '401 none claims' ],
              [ '/v1', 'aaa.bbb', '401 none (?:malformed|unknown)' ],
              [ '/v1', token('https://one', $secret[0]) =~ s/\.[^.]+$/./r,
                '401 none (?:malformed|unknown)' ],
              [ '/one', token('https://one', $secret[0]),
                '200 jwt one:jo jo' ],
              [ '/one', token('https://two', $secret[1]),
                '401 none (?:claims|signature)' ],
              [ '/one', $bob, '401 none malformed' ],
              [ '/one', 'a' x 20000, '400 off' ],
              [ '/key', token('https://one', $secret[0]),
                '401 none (?:malformed|unknown)' ],
              [ '/any', token('https://one', $secret[1]),
                '401 none signature' ],
              [ '/any', token('https://one', $secret[0]),
                '200 jwt one:jo jo' ])
{
    my ($path, $key, $want) = @$case;

    ($r, $log) = ask("$path/chat/completions", bearer($key));

    my $got = join ' ', $r->{status}, grep { defined && length }
              map { $log->{$_} } qw(auth id user tenant scopes reason);

    like($got, qr/^(?:$want)$/, "$path: $want");

    next if $r->{status} != 401;

    like($r->{headers}{'www-authenticate'}, qr/error="invalid_token"/,
         '... WWW-Authenticate');
    unlike($r->{body}, qr/signature|claims|one|two|three/,
           '... no hint at what is wrong') if $want !~ /expired|not_yet/;
}

$all = $gw->error_log . $gw->read_file('who.log');
unlike($all, qr/eyJ/, 'no token in a log');

$gw->finish;

# what nginx -t says

sub conf {
    my ($http, $server, $want, $name, %opt) = @_;
    my $gw = AI::Gateway->new(files => {
        'keys.json' => $keys->text, pepper => "0123456789abcdef\n",
        hs => 'h' x 32, short => "0123456789abcde\n", empty => "\n" }, %opt,
        conf => <<"END");
events {}
http {
    ai_provider p { dialect static; }
    ai_jwt_issuer corp { issuer https://x; secret file:hs; alg HS256;
                         audience ai; leeway 1s; }
    $http
    server {
        listen 127.0.0.1:%%PORT_0%%;
        $server
    }
}
END
    my ($rc, $out) = $gw->conf_test;

    if (defined $want) {
        isnt($rc, 0, "$name: refused");
        like($out, qr/\[emerg\].*$want/s, '... message');
        like($out, qr/nginx\.conf:\d+/, '... where')
            if !$opt{anywhere};
    } else {
        is($rc, 0, $name) or diag($out);
    }

    return $out;
}

my $data = 'ai_data %%DIR%%;';

conf('', 'ai_auth key;', qr/needs "ai_data DIRECTORY;"/,
     'ai_auth key without ai_data');
conf('', 'ai_auth variable=$remote_addr;', qr/needs "ai_data DIRECTORY;"/,
     'ai_auth variable= without ai_data');
conf('', 'ai_auth jwt=corp;', undef, 'ai_auth jwt= needs none');
conf($data, 'ai_auth jwt=crop;',
     qr/"ai_auth jwt=crop": no "ai_jwt_issuer crop", did you mean "corp"\?/,
     'unknown issuer');
conf($data, 'ai_auth jwt=;', qr/invalid parameter|expects the name/,
     'no issuer');
conf($data, 'ai_auth jwt;', qr/invalid parameter "jwt".*did you mean "jwt="/,
     'jwt alone');
conf($data, 'ai_auth jwt=corp jwt=corp;', qr/"jwt=corp" twice/,
     'an issuer twice');
conf($data, 'ai_auth kye;', qr/invalid parameter "kye" .*did you mean "key"/,
     'unknown parameter');
conf($data, 'ai_auth;', qr/number of arguments/, 'no parameter');
conf($data, 'ai_auth key key;', qr/has "key" twice/, 'key twice');
conf($data, 'ai_auth off key;', qr/"off" and something else/, 'off and key');
conf($data, 'ai_auth key off;', qr/"off" and something else/, 'key and off');
conf($data, 'ai_auth key; ai_auth key;', qr/is duplicate/, 'two directives');
conf($data, 'ai_auth realm=x;', qr/needs "key", "jwt=", "variable="/,
     'a realm only');
conf($data, 'ai_auth key realm=a realm=b;', qr/has "realm=" twice/,
     'two realms');
conf($data, 'ai_auth key realm=a"b;', qr/"realm=" with quotes/,
     'quotes in a realm');
conf($data, 'ai_auth variable=alice;',
     qr/"ai_auth variable=alice" would be the same caller for every request/,
     'a constant identity');
conf($data, 'ai_auth variable=$nothing;', qr/unknown "nothing" variable/,
     'unknown variable', anywhere => 1);
conf($data, 'satisfy any; ai_auth variable=$remote_user;',
     qr/\$remote_user does not work with "satisfy any"/,
     '$remote_user and satisfy any');
conf($data, 'ai_auth variable=$remote_user; location / { satisfy any; }',
     qr/\$remote_user does not work with "satisfy any"/, '... inherited');
conf($data, 'ai_auth variable=$ssl_client_s_dn variable=x$remote_addr;',
     undef, 'several variables');

conf("$data ai_key_secret file:pepper;", 'ai_auth key;', undef,
     'ai_key_secret file:');
conf("$data ai_key_secret env:AI_PEPPER;", 'ai_auth key;', undef,
     'ai_key_secret env:', env => { AI_PEPPER => 'fedcba9876543210' });
conf("$data ai_key_secret env:AI_NO_PEPPER;", 'ai_auth key;',
     qr/environment variable "AI_NO_PEPPER" is not set/, '... not set');
conf("$data ai_key_secret file:nofile;", 'ai_auth key;', qr/nofile/,
     '... no file');
conf("$data ai_key_secret file:empty;", 'ai_auth key;', qr/empty/,
     '... empty file');
conf("$data ai_key_secret file:short;", 'ai_auth key;',
     qr/less than 16 bytes/, '... too short');
my $out = conf("$data ai_key_secret 0123456789abcdef;", 'ai_auth key;',
               qr/expects "file:PATH" or "env:NAME"/, '... literal');
unlike($out, qr/0123456789abcdef/, '... is not shown');
conf("$data ai_key_secret file:pepper; ai_key_secret file:pepper;",
     'ai_auth key;', qr/is duplicate/, '... twice');
$out = conf("$data ai_key_secret file:pepper;", '', undef, '... unused');
like($out, qr/\[warn\].*"ai_key_secret" has no effect/, '... warns');

conf("$data ai_auth_log $_;", 'ai_auth key;', undef, "ai_auth_log $_")
    for qw(off rate=1r/s rate=1000r/s);
conf("$data ai_auth_log $_;", 'ai_auth key;',
     qr/invalid parameter "\Q$_\E" of "ai_auth_log"/, "ai_auth_log $_")
    for qw(on rate=0r/s rate=5 rate=5r/m rate=r/s 5r/s);
conf("$data ai_auth_log off; ai_auth_log off;", 'ai_auth key;',
     qr/is duplicate/, '... twice');

# keys whose hash has a secret

my $peppered = AI::Keys->new(secret => 'fedcba9876543210');
my $peter = $peppered->add('peter');

for my $case ([ 'fedcba9876543210', 200 ], [ 'fedcba9876543211', 401 ]) {
    my $hmac = gateway(<<"END", files => {
    ai_data %%DIR%%;
    ai_key_secret file:pepper;
    ai_provider p { dialect static; }
END
        'keys.json' => $peppered->text, pepper => "$case->[0]\n",
    }, server => 'location /v1/ { ai_auth key; ai_pass p; }');

    is($hmac->client->get('/v1/models', headers => [ 'x-api-key' => $peter ])
            ->{status}, $case->[1], "ai_key_secret: $case->[1]");
    unlike($hmac->error_log, qr/\Q$case->[0]\E/, '... is in no log');
    $hmac->finish;
}

done_testing();
