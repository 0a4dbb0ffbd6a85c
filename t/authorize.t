#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# What a caller may call: models, providers, endpoints, scopes, policy; and
# that no alias, other spelling, fallback or path goes around it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP;
use Test::More;

use AI::Kit;
use AI::Gateway;
use AI::Keys;
use AI::Provider;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

my $p = provider();
my $url = $p->url;

my $keys = AI::Keys->new;

$keys->add('all');
$keys->add('small', models => [ 'small' ]);
$keys->add('wild', models => [ 's*l', 'p/x-*' ]);
$keys->add('pair', models => [ 'p/x-1', 'q/*' ]);
$keys->add('bare', models => [ 'x-1' ]);
$keys->add('nothing', models => []);
$keys->add('nobig', deny => [ 'big' ]);
$keys->add('noup', deny => [ 'up-BIG' ]);
$keys->add('nopair', deny => [ 'q/*' ]);
$keys->add('both', models => [ '*' ], deny => [ '*big*' ]);
$keys->add('onlyp', providers => [ 'p' ]);
$keys->add('onlyq', providers => [ 'q' ]);
$keys->add('nocanned', providers => [ 'p', 'q' ]);
$keys->add('chat', endpoints => [ 'chat' ]);
$keys->add('lists', endpoints => [ 'models', 'embeddings', 'completions',
                                   'count_tokens' ]);
$keys->add('passer', models => [ 'small' ],
           endpoints => [ 'chat', 'passthrough', 'models' ]);
$keys->add('passonly', endpoints => [ 'passthrough' ]);
$keys->add('smodel', scopes => [ 'model:small', 'model:x-*', 'use' ]);
$keys->add('sprov', scopes => 'use provider:q');
$keys->add('sends', scopes => [ 'endpoint:chat' ]);
$keys->add('sand', models => [ 'small', 'big' ], scopes => [ 'model:big' ]);
$keys->add('admin', scopes => [ 'admin', 'use' ]);
$keys->add('use', scopes => [ 'use' ]);
$keys->add('free', plan => 'free', tenant => 'acme');
$keys->add('gold', plan => 'gold');

my $gw = gateway(<<"END", files => {
    ai_data %%DIR%% interval=50ms;
    ai_auth_log rate=1000r/s;

    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_provider q { dialect openai; endpoint $url; key none; }
    ai_provider canned { dialect static; text "canned"; }

    ai_model small  { target p/up-small; }
    ai_model big    { target p/up-big; }
    ai_model hidden { target p/up-hidden; }
    ai_model mixed  { target p/status:500; fallback q/Up-Big canned/x;
                      retry off; }
    ai_model hasq   { target q/up-small; fallback p/up-small; }
    ai_model onlyq  { target q/up-small; }
    ai_model stat   { target canned/x; }
    ai_alias tiny   small;
    ai_alias huge   big;

    map \$ai_plan:\$ai_model \$denied {
        default        "";
        ~^free:big\$   "model is not in your plan";
        ~^free:small\$ "0";
    }

    map \$http_x_deny \$deny_header { default \$http_x_deny; }

    log_format who escape=json '{"uri":"\$request_uri","status":"\$status",'
        '"id":"\$ai_key_id","reason":"\$ai_deny_reason",'
        '"error":"\$ai_error","attempts":"\$ai_attempts"}';

    access_log %%DIR%%/who.log who;
END
    'keys.json' => $keys->text,
}, server => <<'SERVER');
        ai_auth key;

        location /v1/     { ai_pass model; }
        location /direct/ { ai_pass model direct=on; }
        location /p/      { ai_pass p; }
        location /canned/ { ai_pass canned; }

        location /last/   { ai_fallback canned/any; ai_pass model; }
        location /lastp/  { ai_fallback q/x-2; ai_pass p; }

        location /policy/ {
            ai_deny $denied;
            ai_deny $deny_header status=429;
            ai_pass model;

            location /policy/more/ {
                ai_deny $http_x_more status=404;
                ai_pass model;
            }
        }

        location = /policy-page { ai_deny $deny_header status=451;
                                  stub_status; }

        location /open/ { ai_auth off; ai_deny $deny_header; ai_pass model; }

        location /scoped/ {
            ai_require scope=use;
            ai_pass model;

            location /scoped/admin/ { ai_require scope=admin; ai_pass model; }
            location /scoped/off/   { ai_auth off; ai_pass model; }
        }

        location /two/ { ai_require scope=use scope=admin; ai_pass model; }

        location = /page { ai_require scope=admin; stub_status; }

        location /anyscope/ {
            satisfy any; allow all;
            ai_require scope=admin;
            ai_pass model;
        }
SERVER

my $c = $gw->client;
my $n = 0;

sub ask {
    my ($id, $path, $body, %opt) = @_;
    my $tag = 'tag=' . ++$n;
    my @headers = defined $id ? @{ $keys->bearer($id) } : ();

    $path .= "?$tag";
    $opt{headers} = [ @headers, @{ $opt{headers} // [] } ];

    my $r = defined $body ? $c->post($path, $body, %opt)
                          : $c->get($path, %opt);
    my $line = $gw->wait_log(qr/\b$tag\b/, 'who.log') // '{}';

    return ($r, decode_json($line));
}

# status, and why

sub may {
    my ($id, $model, $want, $path, %opt) = @_;
    $path //= '/v1';

    my ($r, $log) = ask($id, "$path/chat/completions", chat($model), %opt);
    is("$r->{status} $log->{reason}" =~ s/ $//r, $want,
       "$id, $path: $model");

    if ($r->{status} == 403 && $log->{reason} =~ /^(?:model|provider)$/) {
        my $error = $r->json->{error};
        is("$error->{type} $error->{code} $error->{param}",
           'invalid_request_error permission_denied model', '... as OpenAI');
        like($error->{message}, qr/"\Q$model\E"/, '... names it');
        is($log->{id}, $id, '... who it was');
        is($log->{attempts}, '0', '... nobody was asked');
    }

    return $r;
}

# models: the configured name counts, whatever the client calls it

may(all => $_, 200) for qw(small big tiny huge stat);
may(small => 'small', 200);
may(small => 'tiny', 200);
may(small => 'big', '403 model');
may(small => 'huge', '403 model');
may(small => 'SMALL', '404');
may(small => ' small', '404');
may(wild => 'small', 200);
may(wild => 'big', '403 model');
may(nothing => 'small', '403 model');

my ($r, $log) = ask('small', '/v1/messages', { %{ chat('big') },
                                               max_tokens => 5 });
is($r->{status}, 403, 'Anthropic');
is($r->json->{error}{type}, 'permission_error', '... type');

# the names of a provider

may(small => 'p/up-small', '403 model', '/direct');
may(small => 'p/small', '403 model', '/direct');
may(wild => 'p/x-1', 200, '/direct');
may(wild => 'p/y-1', '403 model', '/direct');
may(wild => 'q/x-1', '403 model', '/direct');
may(pair => 'q/anything', 200, '/direct');
may(pair => 'p/X-1', '403 model', '/direct');
may(pair => 'p/x-1', 200, '/direct');
may(bare => 'p/x-1', '403 model', '/direct');

may(bare => 'x-1', 200, '/p');
may(pair => 'x-1', 200, '/p');
may(pair => 'x-2', '403 model', '/p');
may(bare => 'X-1', '403 model', '/p');
may(small => 'up-small', '403 model', '/p');
may(small => 'small', 200, '/canned');
may(small => 'big', '403 model', '/canned');

# deny: any spelling, and whatever would serve it

may(nobig => 'small', 200);
may(nobig => 'big', '403 model');
may(nobig => 'huge', '403 model');
may(noup => 'big', '403 model');
may(noup => 'small', 200);
may(noup => 'p/up-big', '403 model', '/direct');
may(noup => 'p/UP-Big', '403 model', '/direct');
may(noup => 'p/up-big ', '403 model', '/direct');
may(noup => 'up-big', '403 model', '/p');
may(noup => 'up-bigger', 200, '/p');
may(both => 'small', 200);
may(both => 'big', '403 model');
may(both => 'x-Big-y', '403 model', '/p');

# fallbacks

$p->reset;
$r = may(all => 'mixed', 200);
is($r->{headers}{'x-ai-provider'}, 'q', '... the first fallback');
$p->reset;
$r = may(noup => 'mixed', 200);
is($r->{headers}{'x-ai-provider'}, 'canned', '... which is denied, the next');
is(scalar(grep { lc($_->{json}{model} // '') eq 'up-big' } $p->log), 0,
   '... and not asked');
$r = may(nopair => 'mixed', 200);
is($r->{headers}{'x-ai-provider'}, 'canned', '... denied by its provider');
$r = may(nocanned => 'mixed', 200);
is($r->{headers}{'x-ai-provider'}, 'q', '... allowed');
may(onlyp => 'mixed', 500);
$r = may(all => 'big', 200, '/last');
may(small => 'big', '403 model', '/last');
may(nobig => 'big', '403 model', '/last');
may(onlyp => 'stat', '403 provider', '/last');
may(pair => 'x-1', 200, '/lastp');
$r = may(pair => 'x-9', 200, '/lastp');
is($r->{headers}{'x-ai-provider'}, 'q',
   '... of the location: the fallback is allowed');

# providers

may(onlyp => 'small', 200);
$r = may(onlyp => 'hasq', 200);
is($r->{headers}{'x-ai-provider'}, 'p', '... the other target');
may(onlyp => 'onlyq', '403 provider');
may(onlyp => 'stat', '403 provider');
may(onlyp => 'q/x', '403 provider', '/direct');
may(onlyp => 'p/x', 200, '/direct');
may(onlyq => 'x', '403 provider', '/p');
may(onlyp => 'x', '403 provider', '/canned');

# endpoints

my %endpoint = (
    chat => [ '/v1/chat/completions', chat('stat') ],
    messages => [ '/v1/messages', { %{ chat('stat') }, max_tokens => 5 } ],
    completions => [ '/v1/completions', { model => 'stat', prompt => 'x' } ],
    embeddings => [ '/v1/embeddings', { model => 'stat', input => 'x' } ],
    count_tokens => [ '/v1/messages/count_tokens', chat('stat') ],
    models => [ '/v1/models' ],
    model => [ '/v1/models/stat' ],
    passthrough => [ '/p/files' ],
    plist => [ '/p/models' ],
);

for my $case ([ all => keys %endpoint ],
              [ chat => 'chat', 'messages' ],
              [ sends => 'chat', 'messages' ],
              [ lists => qw(completions embeddings count_tokens models model
                            plist) ],
              [ passonly => qw(passthrough) ])
{
    my ($id, @may) = @$case;
    my %may = map { $_ => 1 } @may;

    for my $name (sort keys %endpoint) {
        my ($r, $log) = ask($id, @{ $endpoint{$name} });

        is($may{$name} ? $r->{status} : "$r->{status} $log->{reason}",
           $may{$name} ? 200 : '403 endpoint', "$id: $name");
    }
}

($r) = ask('chat', '/v1/embeddings', { model => 'stat', input => 'x' });
like($r->json->{error}{message}, qr/\(embeddings\)/, '... says which');

# before the body is read

my $s = $c->open('/v1/embeddings', 'x' x 10000, send => 0, timeout => 5,
                 headers => [ @{ $keys->bearer('chat') } ]);
$s->finish;
is($s->{status}, 403, '... before the body');

# models that a provider is asked for are not looked at

for my $case ([ small => '403 endpoint' ], [ nobig => '403 endpoint' ],
              [ smodel => '403 endpoint' ], [ passer => '200 ' ],
              [ onlyp => '200 ' ], [ onlyq => '403 provider' ])
{
    my ($id, $want) = @$case;

    for my $path ('/p/files', '/p/models', '/p/models/up-small') {
        my ($r, $log) = ask($id, $path);
        is("$r->{status} $log->{reason}", $want, "$id: $path");
    }

    my ($r, $log) = ask($id, '/p/responses', { model => 'up-big' });
    is("$r->{status} $log->{reason}", $want, '... POST');
}

# lists of models

sub models {
    my ($id, $path) = @_;
    my ($r) = ask($id, ($path // '/v1') . '/models');
    return join ' ', sort map { $_->{id} } @{ $r->json->{data} // [] };
}

is(models('all'), 'big hasq hidden huge mixed onlyq small stat tiny',
   'models: all');
is(models('small'), 'small tiny', '... one and its alias');
is(models('nothing'), '', '... none');
is(models('nobig'), 'hasq hidden mixed onlyq small stat tiny', '... denied');
is(models('noup'), 'hasq hidden mixed onlyq small stat tiny',
   '... by what serves it');
is(models('onlyq'), 'hasq mixed onlyq', '... providers');
is(models('smodel'), 'small tiny', '... scopes');
is(models('small', '/canned'), 'small tiny', '... of a static provider');

($r) = ask('small', '/v1/models/tiny');
is($r->{status}, 200, '... one of them');
($r) = ask('small', '/v1/models/big');
is($r->{status}, 404, '... another one does not exist');
unlike($r->{body}, qr/hidden|huge/, '... and shows no others');
($r) = ask('small', '/v1/chat/completions', chat('hiden'));
is($r->{status}, 404, 'a name that is not there');
unlike($r->{body}, qr/hidden/, '... no hint at what is not allowed');
($r) = ask('all', '/v1/chat/completions', chat('hiden'));
like($r->{body}, qr/hidden/, '... only to those that may');

# scopes of the forms model:, provider:, endpoint:

may(smodel => 'small', 200);
may(smodel => 'tiny', 200);
may(smodel => 'big', '403 model');
may(smodel => 'x-7', 200, '/p');
may(smodel => 'y-7', '403 model', '/p');
may(sprov => 'onlyq', 200);
may(sprov => 'small', '403 provider');
may(sand => 'big', 200);
may(sand => 'small', '403 model');
may(use => 'small', 200);

# ai_require

may(use => 'small', 200, '/scoped');
may(all => 'small', '403 scope', '/scoped');
may(sprov => 'onlyq', 200, '/scoped');
may(use => 'small', '403 scope', '/scoped/admin');
may(admin => 'small', 200, '/scoped/admin');
may(use => 'small', '403 scope', '/two');
may(admin => 'small', 200, '/two');

($r) = ask('use', '/two/chat/completions', chat('small'));
is($r->{headers}{'www-authenticate'},
   'Bearer realm="AI gateway", error="insufficient_scope", scope="admin"',
   '... WWW-Authenticate');
like($r->json->{error}{message}, qr/scope "admin"/, '... message');

($r) = ask(undef, '/scoped/off/chat/completions', chat('small'));
is($r->{status}, 200, '... off');
($r) = ask('use', '/page');
is($r->{status}, 403, '... another content');
($r) = ask('admin', '/page');
is($r->{status}, 200, '... with it');
($r) = ask(undef, '/anyscope/chat/completions', chat('small'));
is($r->{status}, 401, '... satisfy any: nobody has no scope');
may(admin => 'small', 200, '/anyscope');
may(use => 'small', '403 scope', '/anyscope');

# ai_deny

my @text = ('403 model is not in your plan');

$r = may(free => 'big', @text, '/policy');
is($r->json->{error}{message}, 'model is not in your plan', '... message');
is($r->json->{error}{code}, 'permission_denied', '... code');
may(free => 'huge', @text, '/policy');
may(free => 'small', 200, '/policy');
may(gold => 'big', 200, '/policy');
$r = may(gold => 'big', '429 slow down', '/policy',
         headers => [ 'X-Deny' => 'slow down' ]);
is($r->json->{error}{code}, 'rate_limit_exceeded', '... status');
$r = may(gold => 'big', '429 a"b\\', '/policy',
         headers => [ 'X-Deny' => 'a"b\\' ]);
is($r->json->{error}{message}, 'a"b\\', '... any text');
may(gold => 'big', 200, '/policy', headers => [ 'X-Deny' => '0' ]);
may(gold => 'big', '429 00', '/policy', headers => [ 'X-Deny' => '00' ]);
may(free => 'big', @text, '/policy/more');
may(gold => 'big', '429 first', '/policy/more',
    headers => [ 'X-Deny' => 'first', 'X-More' => 'second' ]);
may(gold => 'big', '404 second', '/policy/more',
    headers => [ 'X-More' => 'second' ]);

($r) = ask('all', '/policy-page');
is($r->{status}, 200, '... another content');
($r, $log) = ask('all', '/policy-page', undef,
                 headers => [ 'X-Deny' => 'no' ]);
is("$r->{status} $log->{reason}", '451 no', '... refused');
($r, $log) = ask(undef, '/open/chat/completions', chat('small'),
                 headers => [ 'X-Deny' => 'no' ]);
is("$r->{status} $log->{reason}", '403 no', '... without ai_auth');

($r, $log) = ask(undef, '/policy/chat/completions', chat('big'));
is("$r->{status} $log->{reason}", '401 none', '... who, before what');

# the log

my $text = $gw->error_log;

like($text, qr/reason=model key=small tenant=- .* model=big rule=models/,
     'log: list of models');
like($text, qr/reason=model key=noup .* rule=up-BIG/, '... deny');
like($text, qr/reason=provider key=onlyp .* rule=providers/,
     '... providers');
like($text, qr/reason=endpoint key=chat .* rule=endpoints detail=/,
     '... endpoints');
like($text, qr/reason=scope key=use .* rule=admin/, '... scope');
like($text, qr/reason=policy key=free tenant=acme .* detail="model is not/,
     '... policy');
is(scalar(() = $text =~ /reason=\w+ key=all .*model=mixed/g), 0,
   '... nothing of a fallback that was left out');
is(scalar(() = $text =~ /ai auth: a request without/g), 0,
   '... nobody without an identity');

$gw->finish;

# what nginx -t says

sub conf {
    my ($http, $server, $want, $name) = @_;
    my $gw = AI::Gateway->new(files => { 'keys.json' => $keys->text },
                              conf => <<"END");
events {}
http {
    ai_provider p { dialect static; }
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
            if $out !~ /unknown "nothing"/;
    } else {
        is($rc, 0, $name) or diag($out);
    }
}

my $data = 'ai_data %%DIR%%;';

conf($data, 'location / { ai_require scope=a; ai_pass p; }',
     qr/"ai_require" applies to location "\/", which has no "ai_auth"/,
     'ai_require without ai_auth');
conf($data, 'ai_require scope=a; location /a/ { ai_auth key; ai_pass p; }
             location /b/ { ai_pass p; }',
     qr/location "\/b\/", which has no/, '... inherited');
conf($data, 'ai_require scope=a; location / { ai_auth off; ai_pass p; }',
     qr/"ai_require" has no effect/, '... everywhere off');
conf($data, 'ai_require scope=a;', qr/has no effect/, '... no location');
conf($data, 'ai_require scope=a; location /a/ { ai_auth key; ai_pass p; }
             location /b/ { ai_auth off; ai_pass p; }', undef,
     '... off where it is meant');
conf("$data ai_auth key; ai_require scope=a;", 'location / { ai_pass p; }',
     undef, '... of http');
conf($data, 'ai_auth key; ai_require admin;',
     qr/invalid parameter "admin" of "ai_require", it is "scope=NAME"/,
     'ai_require: no scope=');
conf($data, 'ai_auth key; ai_require scope=;', qr/invalid parameter/,
     '... empty');
conf($data, 'ai_auth key; ai_require "scope=a b";',
     qr/scope "a b" has a character/, '... space');
conf($data, 'ai_auth key; ai_require;', qr/number of arguments/,
     '... no argument');
conf('', 'ai_deny "no";', qr/"ai_deny no" would refuse every request/,
     'ai_deny: a constant');
conf('', 'ai_deny $uri 403;', qr/it is "status=NUMBER"/, '... parameter');
conf('', "ai_deny \$uri status=$_;", qr/invalid status "$_" of "ai_deny"/,
     "... $_") for qw(200 399 452 408 444 500 x);
conf('', "ai_deny \$uri status=$_;", undef, "... $_")
    for qw(400 402 404 413 429 451 503);
conf('', 'ai_deny $nothing;', qr/unknown "nothing" variable/,
     '... unknown variable');
conf('', 'ai_deny;', qr/number of arguments/, '... no argument');

done_testing();
