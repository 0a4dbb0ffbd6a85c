#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# ai_limit_zone, ai_limit, ai_dry_run, ai_headers, ai_limit_view: each
# parameter with its effect and its mistakes; what clients are told; many of
# them at once over several workers.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP;
use Test::More;
use Time::HiRes qw(time sleep);

use AI::Kit;
use AI::Gateway;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'no module of limits'
    if AI::Gateway::modules() && !grep { /ratelimit/ } AI::Gateway::modules();

my $p = provider();
my $url = $p->url;

my $base = "ai_provider p { dialect openai; endpoint $url; key none; }\n"
           . 'ai_model m { target p/usage:10.20; } '
           . 'ai_model s { target p/wait:300; } ';


# mistakes

sub bad {
    my ($name, $zone, $expected, $server, $location) = @_;
    $server //= '';
    $location //= 'ai_pass model;';

    my $gw = AI::Gateway->new(conf => <<"END");
events {}
http {
    $base
    $zone
    server { listen 127.0.0.1:%%PORT_0%%;
        $server
        location / { $location }
    }
}
END
    my ($rc, $out) = $gw->conf_test;
    isnt($rc, 0, "$name: refused");
    like($out, $expected, "$name: why");
    like($out, qr/in .*nginx\.conf:\d+/, "$name: where")
        if $expected !~ /variable/;
}

bad('no zone=', 'ai_limit_zone $uri requests=1r/m;', qr/no "zone="/);
bad('zone twice', 'ai_limit_zone $uri zone=a zone=b requests=1/m;',
    qr/has "zone" twice/);
bad('bad name', 'ai_limit_zone $uri zone=a+b requests=1/m;',
    qr/invalid name "a\+b"/);
bad('no name', 'ai_limit_zone $uri zone= requests=1/m;',
    qr/no "zone="|invalid name ""/);
bad('bad size', 'ai_limit_zone $uri zone=a:x requests=1/m;',
    qr/invalid size "x" of zone "a"/);
bad('small size', 'ai_limit_zone $uri zone=a:8k requests=1/m;',
    qr/zone "a" is too small, it needs at least 128k/);
bad('nothing limited', 'ai_limit_zone $uri zone=a;',
    qr/zone "a" limits nothing/);
bad('duplicate zone', 'ai_limit_zone $uri zone=a requests=1/m; '
    . 'ai_quota_zone $uri zone=a tokens=1/day;', qr/duplicate zone "a"/);
bad('no unit', 'ai_limit_zone $uri zone=a requests=60;',
    qr/invalid "requests=60": it has no unit of time/);
bad('bad unit', 'ai_limit_zone $uri zone=a requests=60r/year;',
    qr/invalid "requests=60r\/year": units of time are/);
bad('a month', 'ai_limit_zone $uri zone=a tokens=60/month;',
    qr/a month needs "ai_quota_zone"/);
bad('not a number', 'ai_limit_zone $uri zone=a tokens=many/m;',
    qr/invalid "tokens=many\/m": it is not a number/);
bad('negative', 'ai_limit_zone $uri zone=a tokens=-5/m;',
    qr/it is not a number/);
bad('a fraction', 'ai_limit_zone $uri zone=a tokens=1.5/m;',
    qr/it is not a whole number/);
bad('too large', 'ai_limit_zone $uri zone=a tokens=99999999g/m;',
    qr/it is too large/);
bad('empty amount', 'ai_limit_zone $uri zone=a tokens=;',
    qr/it has no amount/);
bad('amount twice', 'ai_limit_zone $uri zone=a tokens=1/m tokens=2/m;',
    qr/zone "a" has "tokens" twice/);
bad('concurrent with a unit', 'ai_limit_zone $uri zone=a concurrent=5/m;',
    qr/invalid "concurrent=5\/m": it is a number/);
bad('burst of nothing', 'ai_limit_zone $uri zone=a tokens=1/m burst=2;',
    qr/"burst" needs "requests"/);
bad('burst 0', 'ai_limit_zone $uri zone=a requests=1/m burst=0;',
    qr/invalid "burst=0"/);
bad('redis', 'ai_limit_zone $uri zone=a requests=1/m redis=main;',
    qr/zone "a": no ai_redis "main"/);
bad('unknown parameter', 'ai_limit_zone $uri zone=a request=1/m;',
    qr/unknown parameter "request", did you mean "requests"\?/);
bad('parameter of the other kind', 'ai_limit_zone $uri zone=a usd=1/m;',
    qr/unknown parameter "usd"/);
bad('unknown variable', 'ai_limit_zone $no_such zone=a requests=1/m;',
    qr/unknown "no_such" variable/);

my $ok = 'ai_limit_zone $uri zone=perkey requests=1/m;';

bad('unknown zone', $ok, qr/ai_limit\ "perkee":\ no\ such
    \ ai_limit_zone,\ did\ you\ mean\ "perkey"\?/x, '', 'ai_limit perkee; ai_pass model;');
bad('of the other kind', $ok, qr/ai_quota\ "perkey":\ the\ zone\ is\ of
    \ "ai_limit_zone",\ use\ "ai_limit"/x, '',
    'ai_quota perkey; ai_pass model;');
bad('twice', $ok, qr/"ai_limit perkey" is duplicate/, '',
    'ai_limit perkey perkey; ai_pass model;');
bad('off beside others', $ok, qr/"off" of "ai_limit" stands alone/, '',
    'ai_limit perkey off; ai_pass model;');
bad('unknown parameter of ai_limit', $ok, qr/unknown parameter "a=b"/, '',
    'ai_limit perkey a=b; ai_pass model;');
bad('without ai_pass', $ok, qr/"ai_limit" in a location without "ai_pass"/,
    '', 'ai_limit perkey; return 204;');
bad('unknown word of ai_dry_run', $ok,
    qr/unknown "limits" in "ai_dry_run", did you mean "limit"\?/, '',
    'ai_dry_run limits; ai_pass model;');
bad('ai_dry_run off and more', $ok, qr/"ai_dry_run" directive has "off" beside others/,
    '', 'ai_dry_run off limit; ai_pass model;');
bad('unknown word of ai_headers', $ok, qr/unknown "rate" in "ai_headers"/, '',
    'ai_headers rate; ai_pass model;');
bad('a near word of ai_headers', $ok,
    qr/unknown "usage_cots" in "ai_headers", did you mean "usage_cost"\?/, '',
    'ai_headers usage_cots; ai_pass model;');
bad('ai_headers twice', $ok, qr/"ai_headers" directive is duplicate/, '',
    'ai_headers off; ai_headers ietf; ai_pass model;');
bad('ai_limit_view', $ok, qr/unknown parameter "read" of "ai_limit_view"/, '',
    'ai_limit_view read;');

# in a location that only those below serve, it is of use

my $gw = AI::Gateway->new(conf => <<"END");
events {}
http {
    $base $ok
    server { listen 127.0.0.1:%%PORT_0%%;
        ai_limit perkey;
        location /v1/ { ai_limit off; ai_limit perkey;
            location ~ chat { ai_pass model; } }
        location /other/ { return 204; }
    }
}
END
is(($gw->conf_test)[0], 0, 'a location that those below serve');


# effects

my $key = '$http_x_key';

$gw = gateway(<<"END", workers => 2, server => <<'END2');
    $base

    ai_provider a { dialect anthropic; endpoint $url; key none; }
    ai_provider e { dialect openai; endpoint $url; key none; }
    ai_model bad  { target p/status:500; retry off; }
    ai_model claude { target a/usage:10.20; }
    ai_model embed { target p/x; }
    ai_model echo { target static/x; }
    ai_provider static { dialect static; text "one two three"; }

    ai_limit_zone $key zone=req  requests=3r/m;
    ai_limit_zone $key zone=fast requests=600r/m burst=2;
    ai_limit_zone $key zone=tok  tokens=1k/m;
    ai_limit_zone $key zone=in   input_tokens=1k/hour;
    ai_limit_zone $key zone=out  output_tokens=1k/hour;
    ai_limit_zone $key zone=conc concurrent=2;
    ai_limit_zone $key zone=var  requests=\$http_x_rpm/m tokens=\$http_x_tpm;
    ai_limit_zone $key zone=zero requests=0/m;
    ai_limit_zone all  zone=all  requests=100/m;
    ai_limit_zone \$ai_model zone=bymodel requests=2/m;

    log_format limit '\$request_uri \$ai_limit|\$ai_quota|\$ai_limit_status';
    access_log %%DIR%%/limit.log limit;
END
    location /req/   { ai_limit req;  ai_pass model; }
    location /fast/  { ai_limit fast; ai_pass model; }
    location /tok/   { ai_limit tok;  ai_pass model; }
    location /nodes/ { ai_limit tok;  ai_max_nodes 100; ai_pass model; }
    location /in/    { ai_limit in;   ai_pass model; }
    location /out/   { ai_limit out;  ai_pass model; }
    location /conc/  { ai_limit conc; ai_pass model; }
    location /var/   { ai_limit var;  ai_pass model; }
    location /zero/  { ai_limit zero; ai_pass model; }
    location /model/ { ai_limit bymodel; ai_pass model; }
    location /two/   { ai_limit all req; ai_pass model; }
    location /dry/   { ai_limit req; ai_dry_run limit; ai_pass model; }
    location /off/   { ai_limit req; ai_headers off; ai_pass model; }
    location /ietf/  { ai_limit req tok; ai_headers ietf ratelimit;
                       ai_pass model; }
    location /server/ {
        ai_limit req;
        location /server/more/ { ai_limit all; ai_pass model; }
        location /server/none/ { ai_limit off; ai_pass model; }
        ai_pass model;
    }
    location = /limits { ai_limit_view; }
    location = /change { ai_limit_view write; }
END2

my $n = 0;

sub ask {
    my ($where, $who, $model, %opt) = @_;
    my $path = $opt{path} // 'v1/chat/completions';
    my $body = chat($model // 'm', %{ $opt{body} // {} });

    $body->{max_tokens} = 20 if !exists $body->{max_tokens};

    return $gw->client->post("/$where/$path?" . ++$n, $body,
                             headers => [ 'X-Key' => $who,
                                          @{ $opt{headers} // [] } ]);
}

sub state_of {
    my ($zone, $who) = @_;
    my $r = $gw->client->get("/limits?zone=$zone&key=$who&check=1");
    my $z = $r->json->{zones}[0];

    ok($z->{consistent}, "$zone: consistent") if !$z->{consistent};

    return $z->{entries}[0] // { holds => 0 };
}

# nothing is held any more

sub idle {
    my ($zone, $who) = @_;
    return $gw->wait_for(sub { state_of($zone, $who)->{holds} == 0 }, 3);
}

sub logline { $gw->wait_log(qr/\?$n /, 'limit.log') // '' }

# requests

my $r = ask('req', 'a');
is($r->{status}, 200, 'requests: the first');
is($r->{headers}{'x-ratelimit-limit-requests'}, 3, '... limit');
is($r->{headers}{'x-ratelimit-remaining-requests'}, 2, '... remaining');
like($r->{headers}{'x-ratelimit-reset-requests'}, qr/^(1[0-9]|20|21)s$/,
     '... reset');
is($r->{headers}{'x-ratelimit-limit-tokens'}, undef, '... of tokens nothing');
like(logline(), qr/ \|\|passed$|-\|-\|passed$/, '... passed');

is(ask('req', 'a')->{status}, 200, 'requests: the second');
is(ask('req', 'a')->{status}, 200, 'requests: the third');

$r = ask('req', 'a');
is($r->{status}, 429, 'requests: the fourth');
is($r->json->{error}{type}, 'requests', '... type');
is($r->json->{error}{code}, 'rate_limit_exceeded', '... code');
like($r->json->{error}{message}, qr/^Rate\ limit\ "req"\ reached:\ limit\ 3\ requests
     \ per\ minute,\ used\ 3,\ requested\ 1,\ remaining\ 0\.\ Please\ try\ again
     \ in\ (1[0-9]|20|21)s\.$/x, '... message');
like($r->{headers}{'retry-after'}, qr/^(1[0-9]|20|21)$/, '... Retry-After');
cmp_ok($r->{headers}{'retry-after-ms'}, '<=', 20001, '... retry-after-ms');
is($r->{headers}{'x-ratelimit-remaining-requests'}, 0, '... remaining');
is($r->{headers}{'x-should-retry'}, undef, '... worth another try');
like(logline(), qr/ req\|-\|refused$/, '... $ai_limit');
is(ask('req', 'b')->{status}, 200, 'requests: another key');
is(ask('req', '')->{status}, 200, 'requests: no key, no limit');
is(ask('req', '')->{headers}{'x-ratelimit-limit-requests'}, undef,
   '... no headers');

my $long = 'k' x 300;
is(ask('req', $long)->{status}, 200, 'a long key') for 1 .. 3;
is(ask('req', $long)->{status}, 429, '... is a key');
is(ask('req', 'k' x 301)->{status}, 200, '... as a whole');

# waiting as long as told is enough

ask('fast', 'a') for 1 .. 2;
$r = ask('fast', 'a');

if ($r->{status} == 429) {
    sleep $r->{headers}{'retry-after-ms'} / 1000;
    is(ask('fast', 'a')->{status}, 200, 'retry-after is true');
} else {
    pass('the machine is too slow for this rate');
}

# tokens: an estimate first, then the provider's figures

$r = ask('tok', 'a');
is($r->{status}, 200, 'tokens');
my ($left) = $r->{headers}{'x-ratelimit-remaining-tokens'};
cmp_ok($left, '<', 980, '... 20 of output are held, and the input');
cmp_ok($left, '>', 940, '... no more than that');
ok(idle('tok', 'a'), '... settled');
my $s = state_of('tok', 'a')->{tokens};
cmp_ok($s->{used}, '<=', 30, '... with what the provider says');
cmp_ok($s->{used}, '>=', 25, '... less what has come back by now');
is($s->{held}, 0, '... nothing is held');

# too many values to count the text of each: it is inferred from the length

$r = ask('nodes', 'n', 'm', body => { messages => [
    map { { role => 'user', content => "word $_" } } 1 .. 40 ] });
is($r->{status}, 200, 'many values: the top level is read');
cmp_ok($r->{headers}{'x-ratelimit-remaining-tokens'}, '<', 700,
       '... the length is what counts');
is(ask('nodes', 'n', 'm',
       body => { map { ("a$_" => 1) } 1 .. 100 })->{status}, 400,
   '... not more of them at the top');

$r = ask('tok', 'b', 'm', body => { max_tokens => 5000 });
is($r->{headers}{'x-ratelimit-remaining-tokens'} > 700, 1,
   'not more than answers usually are');

# larger than the whole limit: not locked out for ever

my $text = 'word ' x 3000;
my $big = { messages => [ { role => 'user', content => $text } ] };
is(ask('tok', 'c', 'm', body => $big)->{status}, 200,
   'above the whole limit: let through alone');
ok(idle('tok', 'c'), '... and settled');
ask('tok', 'c');
$r = ask('tok', 'c', 'm', body => $big);
is($r->{status}, 429, '... not beside others');
is($r->json->{error}{type}, 'tokens', '... type is tokens');

# failures give their tokens back, not their request

$r = ask('tok', 'd', 'bad');
is($r->{status}, 500, 'a failure');
ok(idle('tok', 'd'), '... is settled');
is(state_of('tok', 'd')->{tokens}{used} // 0, 0, '... its tokens are back');

ask('req', 'd', 'bad') for 1 .. 3;
is(ask('req', 'd')->{status}, 429, '... it was a request');

is(ask('in', 'a')->{status}, 200, 'input tokens');
ok(idle('in', 'a'), '... settled');
is(state_of('in', 'a')->{input_tokens}{used}, 10, '... used');
is(ask('out', 'a')->{status}, 200, 'output tokens');
ok(idle('out', 'a'), '... settled');
is(state_of('out', 'a')->{output_tokens}{used}, 20, '... used');

is(ask('out', 'e', 'echo')->{status}, 200, 'a static answer');
ok(idle('out', 'e'), '... settled');
is(state_of('out', 'e')->{output_tokens}{used}, 3, '... counts');

# concurrency

my @s = map { $gw->client->open("/conc/v1/chat/completions?c$_",
                                chat('s'), headers => [ 'X-Key' => 'a' ]) }
        1 .. 2;
ok($gw->wait_for(sub { state_of('conc', 'a')->{holds} == 2 }), 'two run');
$r = ask('conc', 'a');
is($r->{status}, 429, 'concurrent');
like($r->json->{error}{message},
     qr/Limit "conc" reached: 2 requests at a time, 2 are running/,
     '... message');
is($r->{headers}{'retry-after'}, 1, '... Retry-After');
is(ask('conc', 'b')->{status}, 200, '... another key');
$_->finish for @s;
is($s[$_]{status}, 200, '... those that run') for 0, 1;
ok(idle('conc', 'a'), '... are gone');
is(ask('conc', 'a')->{status}, 200, '... and leave their place');

@s = map { $gw->client->open("/conc/v1/chat/completions?c$_", chat('s'),
                             headers => [ 'X-Key' => 'z' ]) } 1 .. 2;
ok($gw->wait_for(sub { state_of('conc', 'z')->{holds} == 2 }), 'two run');
$s[0]->abort;
$s[1]->reset;
ok(idle('conc', 'z'), 'clients that leave leave their place');

# amounts by variables

is(ask('var', 'a', 'm', headers => [ 'X-Rpm' => '2' ])->{status}, 200,
   'by a variable') for 1, 2;
is(ask('var', 'a', 'm', headers => [ 'X-Rpm' => '2' ])->{status}, 429,
   '... has an end');
is(ask('var', 'a', 'm', headers => [ 'X-Rpm' => '5' ])->{status}, 200,
   '... and more for who has more');
is(ask('var', 'a')->{status}, 200, '... without a value no limit');
is(ask('var', 'a', 'm', headers => [ 'X-Rpm' => '0' ])->{status}, 429,
   '... 0 allows nothing');
is(ask('var', 'v', 'm', headers => [ 'X-Tpm' => '100k/m' ])
   ->{headers}{'x-ratelimit-limit-tokens'}, 100000, '... with its unit');
$r = ask('var', 'a', 'm', headers => [ 'X-Rpm' => 'many' ]);
is($r->{status}, 500, '... nonsense is no permission');
like($gw->error_log, qr/zone\ "var":\ "requests=\$http_x_rpm\/m"\ is\ "many\/m":
     \ it\ is\ not\ a\ number/x, '... and is told');

$r = ask('zero', 'a');
is($r->{status}, 429, 'a limit of 0');
is($r->{headers}{'retry-after'}, undef, '... needs no other try');
is($r->{headers}{'x-should-retry'}, 'false', '... and says so');

# keys by what is known after the body

is(ask('model', 'x')->{status}, 200, 'by model') for 1, 2;
is(ask('model', 'x')->{status}, 429, '... has an end');
is(ask('model', 'x', 'echo')->{status}, 200, '... another model');

# several: all or none

ask('two', 't') for 1 .. 3;
my $before = state_of('all', 'all')->{requests}{used};
is(ask('two', 't')->{status}, 429, 'two zones: the second refuses');
cmp_ok(state_of('all', 'all')->{requests}{used}, '<=', $before,
       '... the first has taken nothing');

# contexts

ask('server', 's') for 1 .. 3;
is(ask('server', 's')->{status}, 429, 'a location');
is(ask('server/more', 's')->{status}, 429, '... and those below');
is(ask('server/none', 's')->{status}, 200, '... unless it is off');
$before = state_of('all', 'all')->{requests}{used};
is(ask('server/more', 's2')->{status}, 200, 'limits add up');
cmp_ok(state_of('all', 'all')->{requests}{used}, '>', $before - 1,
       '... in both zones');

# dry run

ask('dry', 'a');
is(ask('dry', 'a')->{status}, 200, 'dry run');
like(logline(), qr/ req\|-\|dry_run$/, '... $ai_limit_status');
like($gw->error_log, qr/would be refused \(dry run\) by zone "req"/,
     '... log');

# headers

$r = ask('off', 'h');
is($r->{headers}{'x-ratelimit-limit-requests'}, undef, 'ai_headers off');

$r = ask('ietf', 'i');
like($r->{headers}{'ratelimit-policy'}, qr/^"req-requests";q=3;w=60;qu=
     "requests",\ "tok-tokens";q=1000;w=60;qu="tokens"$/x,
     'RateLimit-Policy');
like($r->{headers}{ratelimit},
     qr/^"req-requests";r=2;t=(20|19), "tok-tokens";r=\d+;t=\d$/,
     'RateLimit');
is($r->{headers}{'x-ratelimit-limit-requests'}, 3, '... beside the others');

$r = ask('req', 'an', 'claude', path => 'v1/messages');
is($r->{status}, 200, 'Anthropic');
is($r->{headers}{'anthropic-ratelimit-requests-limit'}, 3, '... limit');
is($r->{headers}{'anthropic-ratelimit-requests-remaining'}, 2,
   '... remaining');
like($r->{headers}{'anthropic-ratelimit-requests-reset'},
     qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/, '... reset');
is($r->{headers}{'x-ratelimit-limit-requests'}, undef,
   '... not in the other form');
ask('req', 'an', 'claude', path => 'v1/messages') for 1, 2;
$r = ask('req', 'an', 'claude', path => 'v1/messages');
is($r->{status}, 429, '... refused');
is($r->json->{error}{type}, 'rate_limit_error', '... in its dialect');

# models are listed whatever was used

is($gw->client->get('/req/v1/models', headers => [ 'X-Key' => 'a' ])
   ->{status}, 200, 'models');

# the view

my $v = $gw->client->get('/limits')->json;
is(scalar @{ $v->{zones} }, 10, 'view: all zones');
is($gw->client->get('/limits?zone=none')->{status}, 404, '... no such zone');
is($gw->client->post('/limits?zone=req&key=a', '')->{status}, 405,
   '... no changes there');
$r = $gw->client->get('/limits?zone=req&max=2');
is(scalar @{ $r->json->{zones}[0]{entries} }, 2, '... some of the keys');
ok($r->json->{zones}[0]{next}, '... there are more');
$r = $gw->client->get('/limits?zone=req&max=100&from='
                      . $r->json->{zones}[0]{next});
cmp_ok(scalar @{ $r->json->{zones}[0]{entries} }, '>', 2, '... from there on');

is(ask('req', 'a')->{status}, 429, 'reset: refused before');
is($gw->client->post('/change?zone=req&key=a', '')->json->{reset}, 1,
   'reset');
is(ask('req', 'a')->{status}, 200, '... not after');
is($gw->client->post('/change?zone=req&key=nobody', '')->json->{reset}, 0,
   '... of nobody');
is($gw->client->post('/change?zone=req', '')->{status}, 400,
   '... of all is to be said');
cmp_ok($gw->client->post('/change?zone=req&all=1', '')->json->{reset}, '>', 5,
       '... of all');

is(ask('req', 'r')->{status}, 200, 'raise') for 1 .. 3;
is(ask('req', 'r')->{status}, 429, '... refused before');
is($gw->client->post('/change?zone=req&key=r&action=raise&meter=requests'
                     . '&amount=2&time=1m', '')->{status}, 200, '... raised');
is(ask('req', 'r')->{status}, 200, '... two more') for 1, 2;
is(ask('req', 'r')->{status}, 429, '... no more');
is($gw->client->post("/change?zone=req&key=r&action=raise&$_", '')->{status},
   400, "... $_") for 'meter=usd&amount=1', 'meter=requests', 'amount=1',
                      'meter=requests&amount=x',
                      'meter=requests&amount=1&time=x';
is($gw->client->post('/change?zone=x&key=r', '')->{status}, 404,
   '... unknown zone');
is($gw->client->post('/change?key=r', '')->{status}, 400, '... no zone');

ok($gw->finish, 'clean');


# many clients, several workers, exact sums

$gw = gateway(<<"END", workers => 4, server => <<'END2');
    $base
    ai_model w { target p/wait:50+usage:1.1; }
    ai_limit_zone all zone=req  requests=100/hour;
    ai_limit_zone all zone=conc concurrent=7;
    ai_limit_zone all zone=tok  tokens=2000/week;
END
    location /req/  { ai_limit req; ai_pass model; }
    location /conc/ { ai_limit conc; ai_pass model; }
    location /tok/  { ai_limit tok; ai_pass model; }
    location = /limits { ai_limit_view; }
END2

sub many {
    my ($where, $clients, $each, $model, %more) = @_;
    my %status;

    for (1 .. $each) {
        my @s = map { $gw->client->open("/$where/v1/chat/completions",
                                        chat($model, %more)) } 1 .. $clients;
        $_->finish for @s;
        $status{$_->{status}}++ for @s;
    }

    return \%status;
}

my $got = many('req', 64, 4, 'w');
is($got->{200}, 100, 'as many requests as there may be');
is($got->{429}, 156, '... the others are refused');

$p->reset;
$got = many('conc', 64, 4, 'w');
my @all = $p->log;
cmp_ok($got->{200}, '>=', 28, 'concurrency: each time seven at least');
my %at;

for my $e (@all) {
    $at{$e->{time}}++;
    $at{$e->{end} // $e->{time} + 0.05}--;
}

my ($now, $max) = (0, 0);

for my $t (sort { $a <=> $b } keys %at) {
    $now += $at{$t};
    $max = $now if $now > $max;
}

cmp_ok($max, '<=', 7, '... and never more at once') or diag($max);

# each holds input and 50 of output: admitted by what is left at that moment

$got = many('tok', 64, 1, 'w', max_tokens => 50);
my $one = AI::Client->new(port => $gw->port)
          ->post('/tok/v1/chat/completions', chat('w', max_tokens => 50));
cmp_ok($got->{200} * 50, '<=', 2000, 'tokens: no more than there are');
cmp_ok($got->{200}, '>=', 15, '... but many');
ok($gw->wait_for(sub {
    my $z = $gw->client->get('/limits?zone=tok&check=1')->json->{zones}[0];
    return $z->{consistent} && $z->{entries}[0]{holds} == 0;
}, 3), '... nothing is left behind');

ok($gw->finish, 'clean');

done_testing();
