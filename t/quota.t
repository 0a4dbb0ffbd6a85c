#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# ai_quota_zone, ai_quota, ai_quota_status: windows, tokens and money; what
# survives a reload, a restart and a binary upgrade.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

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
           . 'ai_model m { target p/usage:1000.500.400; '
           . 'price in=1.25 out=10 cached=0.125; } '
           . 'ai_model noprice { target p/usage:10.20; } ';


# mistakes

sub conf {
    my ($zone, $location) = @_;

    return AI::Gateway->new(conf => <<"END");
events {}
http {
    $base
    $zone
    server { listen 127.0.0.1:%%PORT_0%%; location / { $location } }
}
END
}

sub bad {
    my ($name, $zone, $expected, $location) = @_;
    my ($rc, $out) = conf("ai_quota_zone all zone=a $zone;",
                          $location // 'ai_quota a; ai_pass model;')
                     ->conf_test;

    isnt($rc, 0, "$name: refused");
    like($out, $expected, "$name: why");
    like($out, qr/in .*nginx\.conf:\d+/, "$name: where");
}

bad('nothing limited', 'tz=UTC', qr/zone\ "a"\ limits\ nothing,\ it\ needs
    \ "tokens=",\ "usd="\ or\ "requests="/x);
bad('a second', 'tokens=1/s', qr/a second needs "ai_limit_zone"/);
bad('no unit', 'usd=5', qr/it has no unit of time/);
bad('nonsense', 'usd=five/day', qr/invalid "usd=five\/day"/);
bad('too much', 'usd=10m/day', qr/it is too large/);
bad('of the other kind', 'concurrent=5', qr/unknown parameter "concurrent"/);
bad('burst', 'tokens=1/day burst=5', qr/unknown parameter "burst"/);
bad('near', 'token=5/day', qr/unknown\ parameter\ "token",\ did\ you\ mean
    \ "tokens"\?/x);
bad('redis', 'tokens=5/day redis=x', qr/no ai_redis "x"/);
bad('alert', "tokens=5/day alert=$_", qr/invalid "alert=\Q$_\E"/)
    for '80', '80%,', '95%,80%', '0%', 'x%';
bad('tz', 'tokens=5/day tz=Mars/Olympus', qr/invalid "tz=Mars\/Olympus"/);
bad('start', "tokens=5/month start=$_", qr/invalid "start=$_"/)
    for 0, 29, 'monday';
bad('snapshot', 'tokens=5/day snapshot=/no/such/dir/file',
    qr/no directory for snapshot/);
bad('unknown_price', 'usd=5/day unknown_price=maybe',
    qr/invalid "unknown_price=maybe"/);
bad('overrun', 'tokens=5/day', qr/invalid "overrun=stop"/,
    'ai_quota a overrun=stop; ai_pass model;');
bad('no zone', 'tokens=5/day', qr/"ai_quota" names no zone/,
    'ai_quota overrun=cut; ai_pass model;');
bad('ai_limit of a quota', 'tokens=5/day', qr/the zone is of "ai_quota_zone"/,
    'ai_limit a; ai_pass model;');

my ($rc, $out) = conf('', 'ai_quota_status 404; ai_pass model;')->conf_test;
like($out, qr/invalid value "404"/, 'ai_quota_status');

($rc, $out) = conf('ai_quota_zone $uri zone=a:1m tokens=5m/day usd=0.5k/month '
                   . 'requests=100r/hour alert=50%,80%,100% '
                   . 'tz=Europe/Berlin start=mon start=15 unknown_price=deny;',
                   'ai_quota a overrun=finish; ai_quota_status 402; '
                   . 'ai_pass model;')->conf_test;
is($rc, 0, 'all parameters') or diag($out);


# effects

sub start {
    my (%opt) = @_;
    my $more = delete $opt{more} // '';

    return gateway(<<"END", workers => 2, %opt, server => <<'END2');
    $base
    ai_model bad  { target p/status:500; retry off; price in=1 out=1; }
    ai_model free { target static/x; }
    ai_model tool { target p/usage:1.1; price in=1000 out=1000; }
    ai_provider static { dialect static; text "one two three"; }

    ai_quota_zone \$http_x_key zone=tok tokens=10k/day alert=50%,80%;
    ai_quota_zone \$http_x_key zone=usd usd=0.02/month;
    ai_quota_zone \$http_x_key zone=any usd=1/day unknown_price=allow;
    ai_quota_zone \$http_x_key zone=req requests=3/week start=mon;
    ai_quota_zone \$http_x_key zone=min requests=2/m;
    ai_quota_zone \$http_x_key zone=var tokens=\$http_x_quota;
    ai_quota_zone \$http_x_key zone=keep tokens=10k/day requests=100/month
                  usd=1/week snapshot=%%DIR%%/keep;
    ai_quota_zone \$http_x_key zone=small:128k requests=1/day;
    $more
END
    location /tok/  { ai_quota tok; ai_pass model; }
    location /usd/  { ai_quota usd; ai_pass model; }
    location /usd2/ { ai_quota usd; ai_quota_status 402; ai_pass model; }
    location /any/  { ai_quota any; ai_pass model; }
    location /req/  { ai_quota req; ai_pass model; }
    location /min/  { ai_quota min; ai_pass model; }
    location /var/  { ai_quota var; ai_pass model; }
    location /keep/ { ai_quota keep; ai_pass model; }
    location /dry/  { ai_quota req; ai_dry_run quota; ai_pass model; }
    location /off/  { ai_quota off; ai_pass model; }
    location /small/ { ai_quota small; ai_headers off; ai_pass model; }
    location = /limits { ai_limit_view write; }
END2
}

my $gw = start();
my $n = 0;

sub ask {
    my ($where, $who, $model, %opt) = @_;
    my $path = $opt{path} // 'v1/chat/completions';

    return $gw->client->post("/$where/$path?" . ++$n,
                             chat($model // 'm', max_tokens => 500,
                                  %{ $opt{body} // {} }),
                             headers => [ 'X-Key' => $who,
                                          @{ $opt{headers} // [] } ]);
}

sub state_of {
    my ($zone, $who) = @_;
    my $e;

    $gw->wait_for(sub {
        my $z = $gw->client->get("/limits?zone=$zone&key=$who&check=1")
                   ->json->{zones}[0];
        $e = $z->{entries}[0] // { holds => 0 };
        return $z->{consistent} && $e->{holds} == 0;
    }, 3) or fail("$zone: something is held");

    return $e;
}

# tokens

my $r = ask('tok', 'a');
is($r->{status}, 200, 'tokens');
is($r->{headers}{'x-ratelimit-limit-tokens'}, 10000, '... limit');
is(state_of('tok', 'a')->{tokens}{used}, 1500, '... the provider\'s figures');
ok(state_of('tok', 'a')->{tokens}{reset} <= 86400, '... reset');
unlike($gw->error_log, qr/of the quota/, '... no alert');
ask('tok', 'a') for 1 .. 3;
is(state_of('tok', 'a')->{tokens}{used}, 6000, '... add up');
ok($gw->wait_log(qr/\[warn\].*zone\ "tok",\ key\ "a":\ 50%\ of\ the\ quota\ of
     \ tokens\ is\ used,\ 6000\ of\ 10000/x), '... alert');
ask('tok', 'a') for 1 .. 2;
state_of('tok', 'a');
ok($gw->wait_log(qr/80% of the quota of tokens is used, 9000 of 10000/),
   '... the next one');
my @alerts = $gw->error_log =~ /% of the quota/g;
is(scalar @alerts, 2, '... each once');

ask('tok', 'a');
my $used = state_of('tok', 'a')->{tokens}{used};
is($used, 10500, '... the last one may end above');
$r = ask('tok', 'a');
is($r->{status}, 429, '... then it is over');
is($r->json->{error}{code}, 'insufficient_quota', '... code');
like($r->json->{error}{message}, qr/^Quota\ "tok"\ reached:\ limit\ 10000\ tokens
     \ per\ day,\ used\ 10500/x, '... message');
cmp_ok($r->{headers}{'retry-after'}, '<=', 2 * 86400, '... Retry-After');
is($r->{headers}{'x-ratelimit-remaining-tokens'}, 0, '... remaining');

# money

for (1 .. 3) {
    $r = ask('usd', 'a');
    is($r->{status}, 200, "money: $_");
}

is(state_of('usd', 'a')->{usd}{used}, 0.0174, '... 3 x 0.0058');
$r = ask('usd', 'a');
is($r->{status}, 429, '... not enough for another');
like($r->json->{error}{message}, qr/limit 0\.02 usd per month, used 0\.0174/,
     '... message');
$r = ask('usd2', 'a');
is($r->{status}, 402, 'ai_quota_status 402');
is($r->json->{error}{type}, 'insufficient_quota', '... type');

$r = ask('usd', 'b', 'noprice');
is($r->{status}, 403, 'no price');
like($r->json->{error}{message}, qr/No\ price\ is\ known\ for\ the\ model\ "noprice",
     \ which\ the\ budget\ "usd"\ needs/x, '... message');
is($r->{headers}{'x-should-retry'}, 'false', '... no other try');
is(ask('any', 'b', 'noprice')->{status}, 200, '... unless it is allowed');
is(ask('usd', 'b', 'free')->{status}, 200, 'what is made here costs nothing');
is(state_of('usd', 'b')->{usd}{used}, 0, '... nothing at all');
is(ask('usd', 'b', 'bad')->{status}, 500, 'a failure');
is(state_of('usd', 'b')->{usd}{used}, 0, '... costs nothing');

# requests

ask('req', 'a', 'bad');
ask('req', 'a') for 1 .. 3;
is(state_of('req', 'a')->{requests}{used}, 3, 'requests: failures are free');
is(ask('req', 'a')->{status}, 429, '... not more than that');
is(ask('dry', 'a')->{status}, 200, '... dry run');
is(ask('off', 'a')->{status}, 200, '... off');
is(ask('req', '')->{status}, 200, '... no key');

# amounts by variables

is(ask('var', 'a', 'm', headers => [ 'X-Quota' => '1k/day' ])->{status}, 200,
   'a variable');
is(ask('var', 'a', 'm', headers => [ 'X-Quota' => '1k/day' ])->{status}, 429,
   '... has an end');
is(ask('var', 'a', 'm', headers => [ 'X-Quota' => '10k/day' ])->{status}, 200,
   '... which may be raised');

# raises until the end of the window

is($gw->client->post('/limits?zone=req&key=a&action=raise&meter=requests'
                     . '&amount=1', '')->{status}, 200, 'raise');
is(ask('req', 'a')->{status}, 200, '... one more');
is(ask('req', 'a')->{status}, 429, '... only one');

# a window ends

SKIP: {
    my $left = 60 - time() % 60;

    skip 'a window that ends soon is too far away', 3
        if $left > 20 && !$ENV{AI_LONG};

    sleep($left + 0.1) if $left < 5;
    ask('min', 'w') for 1 .. 2;
    $r = ask('min', 'w');
    is($r->{status}, 429, 'a minute');
    sleep $r->{headers}{'retry-after-ms'} / 1000;
    is(ask('min', 'w')->{status}, 200, '... is over when it was told');
    is(state_of('min', 'w')->{requests}{used}, 1, '... and starts with nothing');
}

# a zone that is full refuses, and nobody who is known to it loses anything

is(ask('small', 'known', 'free')->{status}, 200, 'zone full: one is known');

my $full;

for my $i (1 .. 4000) {
    $r = ask('small', "k$i", 'free');
    last if $full = $r->{status} == 503;
}

ok($full, '... others fill it');
like($r->json->{error}{message} // '', qr/table of limits \("small"\) is full/,
     '... message');
is($r->{headers}{'retry-after'}, 1, '... Retry-After');
is(ask('small', 'known', 'free')->{status}, 429, '... the known remain');
my @lines = $gw->error_log =~ /zone "small" is full/g;
cmp_ok(scalar @lines, '<=', 2, '... one line of log');

# reload: the same memory; another key is refused, another size starts anew

ask('keep', 'a') for 1 .. 2;
is(state_of('keep', 'a')->{tokens}{used}, 3000, 'before a reload');
ok($gw->reload, 'reload');
is(state_of('keep', 'a')->{tokens}{used}, 3000, '... everything is there');
is(state_of('tok', 'a')->{tokens}{used}, $used, '... without a file too');

my $conf = $gw->{conf};
(my $other = $conf) =~ s/(ai_quota_zone) \S+ (zone=tok)/$1 \$uri $2/;
$gw->allow(qr/zone "tok" uses the key/);
$gw->write_conf($other);
kill 'HUP', $gw->master;
ok($gw->wait_log(qr/zone\ "tok"\ uses\ the\ key\ "\$uri"\ while\ previously\ it\ used
   \ the\ key\ "\$http_x_key"/x), 'another key is refused');

# the file is written within five seconds of a change

my $size = sub { -s "$gw->{dir}/keep" // 0 };
ok($gw->wait_for(sub { $size->() > 0 }, 8), 'a file is written');
ask('keep', 'b');

($other = $conf) =~ s/zone=tok /zone=tok:1m /;
$other =~ s/zone=keep /zone=keep:1m /;
ok($gw->reload(conf => $other), 'another size');
ok($gw->wait_log(qr/zone "tok" has another size now: it starts empty/),
   '... is told');
is(state_of('tok', 'a')->{tokens}{used} // 0, 0, '... starts empty');
ok($gw->wait_log(qr/zone "keep" has another size now: it starts from/),
   '... with a file');
cmp_ok(state_of('keep', 'a')->{tokens}{used}, '==', 3000,
       '... with what is in there');

# what the old memory had that was not in the file is handed on

ok($gw->wait_for(sub { (state_of('keep', 'b')->{tokens}{used} // 0) == 1500 },
                 10), '... and what was not');

# restart

ask('keep', 'c');
state_of('keep', 'c');
ok($gw->stop, 'stop');
$gw->start;
is(state_of('keep', $_)->{tokens}{used}, { a => 3000, b => 1500, c => 1500 }
   ->{$_}, "restart: tokens of $_") for qw(a b c);
is(state_of('keep', 'a')->{requests}{used}, 2, '... requests');
is(state_of('keep', 'a')->{usd}{used}, 0.0116, '... money');

# killed: what was written before

ask('keep', 'd');
$gw->wait_for(sub { (state_of('keep', 'd')->{tokens}{used} // 0) == 1500 });
my $changed = join ' ', (stat "$gw->{dir}/keep")[1, 9];
ok($gw->wait_for(sub { join(' ', (stat "$gw->{dir}/keep")[1, 9])
                       ne $changed }, 20), 'killed: it was written');
kill 'KILL', -$gw->{group};
$gw->wait_for(sub { !AI::Gateway::alive($gw->{pid}) });
delete $gw->{pid};
unlink "$gw->{dir}/nginx.pid";
$gw->start;
is(state_of('keep', 'd')->{tokens}{used}, 1500, 'killed: what was written');

# torn and foreign files

for my $case ('torn', 'foreign', 'empty') {
    $gw->stop;
    my $text = $gw->read_file('keep');
    $gw->write_file('saved', $text);
    substr($text, length($text) / 2) = '' if $case eq 'torn';
    $text = 'hello, world' x 100 if $case eq 'foreign';
    $text = '' if $case eq 'empty';
    $gw->write_file('keep', $text);
    $gw->start;
    ok($gw->wait_log(qr/snapshot ".*keep" of zone "keep" is damaged/),
       "$case: told");
    is(state_of('keep', 'a')->{tokens}{used} // 0, 0, "$case: starts empty");
    $gw->stop;
    $gw->write_file('error.log', '') if $case ne 'empty';
    $gw->write_file('keep', $gw->read_file('saved'));
    $gw->start;
    is(state_of('keep', 'a')->{tokens}{used}, 3000, "$case: and from a good one");
}

ok($gw->finish, 'clean');


# a binary upgrade: what has ended is in the file, what runs is handed on

$gw = start(daemon => 1, more => 'ai_model slow { target p/n:40+pace:50; '
                                 . 'price in=1 out=1; }');
ask('keep', 'a');
state_of('keep', 'a');
ok($gw->wait_for(sub { -s "$gw->{dir}/keep" }, 8), 'upgrade: a file');
sleep 0.1;

my $s = $gw->client->open('/keep/v1/chat/completions?up',
                          chat('slow', stream => 1, max_tokens => 100),
                          headers => [ 'X-Key' => 's' ]);
$s->event for 1 .. 3;

ok($gw->upgrade, '... another binary');
$s->finish;
like($s->text, qr/w40$/, '... what runs ends');
ok($gw->wait_for(sub { (state_of('keep', 'a')->{tokens}{used} // 0) == 1500 },
                 12), '... what was used is there');
ok($gw->wait_for(sub { (state_of('keep', 's')->{tokens}{used} // 0) > 40 },
                 12), '... and what has ended since then');

ok($gw->finish, 'clean');

done_testing();
