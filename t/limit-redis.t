#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Limits and quotas that nodes share through Redis: two gateways with two
# workers each, and what happens when Redis is killed, stopped or slow.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP;
use POSIX ();
use Test::More;
use Time::HiRes qw(time sleep);

use AI::Kit;
use AI::Gateway;
use AI::Redis;

my $missing = AI::Gateway::missing() // AI::Redis::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'no module of limits'
    if AI::Gateway::modules() && !grep { /ratelimit/ } AI::Gateway::modules();

my $long = $ENV{TEST_AI_LONG};

my $p = provider();
my $url = $p->url;
my $redis = AI::Redis->new(disk => $long, conf =>
    "appendonly yes\nappendfsync " . ($long ? "everysec\n" : "always\n"));
$redis->start;
my $slow = $redis->proxy;

my $key = '$http_x_key';

sub node {
    my (%opt) = @_;
    my $port = $opt{port} // $redis->{port};
    # sums are exact as long as Redis answers in time, which on a machine that
    # does other things may be late
    my $more = $opt{more} // 'timeout 6s; on_error deny;';

    return gateway(<<"END", workers => 2, server => <<'END2');
    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_provider e { dialect static; text "one two three"; }
    ai_model m    { target p/usage:10.20; price in=1 out=1; }
    ai_model w    { target p/wait:2500; }
    ai_model w2   { target p/wait:20000; }
    ai_model s    { target e/x; }
    ai_model long { target p/n:400+pace:5+usage:10.400; }

    ai_redis main { server 127.0.0.1:$port; $more }

    ai_limit_zone $key zone=req  requests=200r/day redis=main;
    ai_limit_zone $key zone=fast requests=6000r/m burst=100 redis=main;
    ai_limit_zone $key zone=tok  tokens=3k/day redis=main;
    ai_limit_zone $key zone=conc concurrent=6 redis=main;
    ai_quota_zone $key zone=day  requests=300/month redis=main;
    ai_quota_zone $key zone=qtok tokens=3k/month redis=main;
    ai_quota_zone $key zone=usd  usd=0.003/month redis=main;
    ai_quota_zone $key zone=much tokens=100m/month redis=main;
    ai_quota_zone $key zone=own  requests=5/month;

    log_format limit '\$request_uri \$ai_limit|\$ai_quota|\$ai_limit_status';
    access_log %%DIR%%/limit.log limit;
END
    location /req/   { ai_limit req;  ai_pass model; }
    location /fast/  { ai_limit fast; ai_pass model; }
    location /tok/   { ai_limit tok;  ai_pass model; }
    location /conc/  { ai_limit conc; ai_pass model; }
    location /day/   { ai_quota day;  ai_pass model; }
    location /qtok/  { ai_quota qtok; ai_pass model; }
    location /usd/   { ai_quota usd;  ai_pass model; }
    location /much/  { ai_quota much; ai_pass model; }
    location /both/  { ai_quota own day; ai_pass model; }
    location /cut/   { ai_quota qtok overrun=cut; ai_pass model; }
    location = /limits { ai_limit_view; }
    location = /change { ai_limit_view write; }
    location = /redis { return 200 $ai_redis_main; }
    location = /fine  { return 204; }
END2
}

sub ask {
    my ($gw, $where, $who, $model, %more) = @_;

    return $gw->client->post("/$where/v1/chat/completions",
                             chat($model // 's', max_tokens => 20, %more),
                             headers => [ 'X-Key' => $who ]);
}

# so many clients of each gateway at a time, each with so many requests;
# counts of answers by status, and the longest time of one of them

sub load {
    my ($gws, $where, $who, $clients, $requests, %opt) = @_;
    my (@readers, %sum);
    my $longest = 0;

    for my $gw (@$gws) {
        for (1 .. $clients) {
            pipe my $r, my $w or die "pipe: $!";
            my $pid = fork // die "fork: $!";

            if ($pid == 0) {
                close $r;
                my (%count, $max);

                for my $i (1 .. $requests) {
                    my $name = ref $who ? $who->($i) : $who;
                    my $start = time();
                    my $s = ask($gw, $where, $name, $opt{model});
                    my $took = time() - $start;
                    $max = $took if $took > ($max // 0);
                    $count{$s->{status}}++;
                    sleep $opt{pause} if $opt{pause};
                }

                print $w encode_json([ \%count, $max ]);
                close $w;
                POSIX::_exit(0);
            }

            close $w;
            push @readers, [ $r, $pid ];
        }
    }

    $opt{meanwhile}->() if $opt{meanwhile};

    for (@readers) {
        my ($r, $pid) = @$_;
        local $/;
        my ($count, $max) = @{ decode_json(<$r> // '[{},0]') };
        waitpid $pid, 0;
        $sum{$_} += $count->{$_} for keys %$count;
        $longest = $max if $max > $longest;
    }

    return (\%sum, $longest);
}

# what Redis knows of a key: sums over its windows

sub ledger {
    my ($zone, $who) = @_;
    my %sum = (g => 0, u => 0);

    for my $k (@{ $redis->cmd('KEYS', "ai:{$zone:$who}:*") // [] }) {
        my %h = @{ $redis->cmd('HGETALL', $k) // [] };
        $sum{$_} += $h{$_} // 0 for qw(g u);
    }

    return \%sum;
}

sub state_of {
    my ($gw, $zone, $who) = @_;
    my $r = $gw->client->get("/limits?zone=$zone&key=$who&check=1");
    my $z = $r->json->{zones}[0];

    ok($z->{consistent}, "$zone: consistent") if !$z->{consistent};

    return $z->{entries}[0] // { holds => 0 };
}

my @gw = (node(), node());

$gw[0]->wait_for(sub { $_[0] || 1; $gw[0]->client->get('/redis')->{body}
                       eq 'up' });

# Sums are exact, whoever asks: each node is asked for more than there is, so
# none is left with what it was granted.

my ($n) = load(\@gw, 'req', 'a', 8, 30);
is($n->{200}, 200, 'requests of a rate: all of them and no more');
is($n->{200} + $n->{429}, 480, 'requests of a rate: the others are refused');

($n) = load(\@gw, 'day', 'a', 8, 40);
is($n->{200}, 300, 'requests of a quota: all of them and no more');
is($n->{200} + $n->{429}, 640, 'requests of a quota: others are refused');

($n) = load(\@gw, 'qtok', 'a', 4, 40, model => 'm');
my $used = $n->{200} * 30;
cmp_ok($used, '<=', 3000, 'tokens of a quota: never above');
cmp_ok($used, '>', 3000 - 8 * 30, 'tokens of a quota: nearly all are used');

$gw[0]->wait_for(sub { ledger('qtok', 'a')->{u} == $used }, 20);
is(ledger('qtok', 'a')->{u}, $used, 'Redis knows what was used');
# ... but for answers that were longer than was reserved for them
cmp_ok(ledger('qtok', 'a')->{g}, '<=', 3000 + 16, 'grants: within the limit');

($n) = load(\@gw, 'tok', 'a', 4, 40, model => 'm');
cmp_ok($n->{200} * 30, '<=', 3000 + 60, 'tokens of a rate: never above');
cmp_ok($n->{200} * 30, '>', 3000 - 8 * 40, 'tokens of a rate: nearly all');

($n) = load(\@gw, 'usd', 'a', 4, 40, model => 'm');
cmp_ok($n->{200} * 30, '<=', 3000, 'money: never above');
cmp_ok($n->{200} * 30, '>', 3000 - 8 * 30, 'money: nearly all is used');

# slots: never more at a time

$p->reset;
($n) = load(\@gw, 'conc', 'a', 8, 1, model => 'w');
is($n->{200} + $n->{429}, 16, 'slots: all are answered');

# the provider knows how many were there when one came

my @log = $p->log;
my $top = 0;

for my $came (map { $_->{time} } @log) {
    my $at = grep { $_->{time} <= $came && ($_->{end} // $came) >= $came } @log;
    $top = $at if $at > $top;
}

cmp_ok($top, '<=', 6, 'slots: never more than the limit');
cmp_ok($top, '>=', 4, 'slots: most of them are used');

ok($gw[0]->wait_for(sub { ask($gw[0], 'conc', 'a')->{status} == 200 }, 20),
   'slots come back');

# what clients are told is of all nodes

my $r = ask($gw[0], 'day', 'h');
is($r->{headers}{'x-ratelimit-limit-requests'}, 300, 'header: the limit');
is($r->{headers}{'x-ratelimit-remaining-requests'}, 299, 'header: remaining');
$r = ask($gw[1], 'day', 'h');
is($r->{headers}{'x-ratelimit-remaining-requests'}, 298,
   'header: what the other node has used');

$r = ask($gw[0], 'day', 'a');
is($r->{status}, 429, 'refusal');
like($r->{body}, qr/limit 300 requests per month/, 'refusal: the limit');

# all or none: what was taken in the zone before comes back

for (1 .. 6) {
    $r = ask($gw[0], 'both', 'a');
    is($r->{status}, 429, 'two zones: refused by the shared one');
    like($r->{body}, qr/\\"day\\"/, 'two zones: by that one');
}

is((state_of($gw[0], 'own', 'a')->{requests} // {})->{used} // 0, 0,
   'two zones: nothing is used of the other');

# what nobody uses comes back

ask($gw[0], 'much', 'idle', 'm') for 1 .. 5;
ok($gw[0]->wait_for(sub {
       my $l = ledger('much', 'idle');
       return $l->{u} == 150 && $l->{g} == 150;
   }, 30), 'grants that are not used go back');

# a hot key costs no call per request

my ($before) = ($redis->cmd('INFO', 'commandstats') // '')
               =~ /cmdstat_evalsha:calls=(\d+)/;
($n) = load(\@gw, 'much', 'hot', 2, 100);
my ($after) = ($redis->cmd('INFO', 'commandstats') // '')
              =~ /cmdstat_evalsha:calls=(\d+)/;
is($n->{200}, 400, 'hot key: all pass');
cmp_ok($after - $before, '<', 120, 'hot key: few calls of Redis');

# the view

ok($gw[1]->wait_for(sub {
       my $s = state_of($gw[1], 'day', 'a');
       return ($s->{requests}{remaining} // 1) == 0
              && $s->{requests}{limit} == 300;
   }, 10), 'view: limits are those of all nodes');

# an operator resets and raises keys at one node, for all of them

sub change {
    my ($gw, $args) = @_;
    my $r = $gw->client->request('POST', "/change?$args", '');

    # a refusal is repeated for 50 ms without asking Redis
    sleep 0.1;
    return "$r->{status} $r->{body}";
}

# so many of these pass at one node

sub passes {
    my ($gw, $where, $who, $most) = @_;
    return scalar grep { ask($gw, $where, $who)->{status} == 200 } 1 .. $most;
}

is(passes($gw[$_], 'day', 'a', 3), 0, "node $_: used up") for 0, 1;
is(change($gw[0], 'zone=day&key=a'), qq(200 {"reset":1}\n), 'reset');
is(passes($gw[1], 'day', 'a', 3), 3, '... at the other node');
is(passes($gw[0], 'day', 'a', 3), 3, '... at this one');
ok($gw[0]->wait_for(sub { ledger('day', 'a')->{u} == 6 }, 20),
   '... what was used since then is counted');
($n) = load(\@gw, 'day', 'a', 8, 40);
is($n->{200}, 294, '... and nothing else');

is(change($gw[1], 'zone=req&key=a'), qq(200 {"reset":1}\n), 'reset of a rate');
($n) = load(\@gw, 'req', 'a', 8, 30);
is($n->{200}, 200, '... all of it, once');

is(change($gw[1], 'zone=day&key=a&action=raise&meter=requests&amount=20'),
   qq(200 {"raised":1}\n), 'raise');
($n) = load(\@gw, 'day', 'a', 4, 20);
is($n->{200}, 20, '... so many more at both nodes');
is(state_of($gw[$_], 'day', 'a')->{requests}{limit}, 320, "... view of node $_")
    for 0, 1;
is(change($gw[0], 'zone=day&key=a&action=raise&meter=requests&amount=0'),
   qq(200 {"raised":1}\n), 'ended');
is(passes($gw[1], 'day', 'a', 3), 0, '... refused again');
is(state_of($gw[1], 'day', 'a')->{requests}{limit}, 300, '... view');
is(change($gw[0], 'zone=day&key=a&action=raise&meter=requests&amount=5&time=1s'),
   qq(200 {"raised":1}\n), 'raise for a second');
is(passes($gw[1], 'day', 'a', 2), 0, '... what is used beyond counts');
sleep 1.1;

is(change($gw[0], 'zone=req&key=a&action=raise&meter=requests&amount=30'),
   qq(200 {"raised":1}\n), 'raise of a rate');
($n) = load(\@gw, 'req', 'a', 4, 20);
cmp_ok($n->{200}, '>=', 30, '... more');
cmp_ok($n->{200}, '<=', 33, '... but not much');

is(change($gw[0], 'zone=day&key=never'), qq(200 {"reset":1}\n),
   'one that was never used');
is(passes($gw[1], 'day', 'never', 2), 2, '... is as it was');
like(change($gw[0], 'zone=day&all=1'), qr/^409 .*name a \\?"key/,
     'all keys are not reset at once');

# what runs stays held

my $running = $gw[0]->client->open('/conc/v1/chat/completions',
                                   chat('w2'), headers => [ 'X-Key' => 'run' ]);
ok($gw[0]->wait_for(sub { state_of($gw[0], 'conc', 'run')->{holds} == 1 }),
   'one is running');
is(change($gw[0], 'zone=conc&key=run'), qq(200 {"reset":1}\n),
   'reset while one runs');
is(state_of($gw[0], 'conc', 'run')->{holds}, 1, '... it holds');
$running->abort;

$redis->stop;
like(change($gw[0], 'zone=day&key=a'), qr/^503 .*Redis does not answer/,
     'no answer');
$redis->cont;
$gw[0]->wait_for(sub {
    2 == grep { $_->client->get('/redis')->{body} eq 'up' } @gw;
}, 20);

# scripts are forgotten, connections closed

$redis->cmd('SCRIPT', 'FLUSH');
is(ask($gw[0], 'much', "flush$_")->{status}, 200, 'SCRIPT FLUSH') for 1 .. 3;

$redis->cmd('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
ok($gw[0]->wait_for(sub { $gw[0]->client->get('/redis')->{body} eq 'up' }, 20),
   'connections come back');
is(ask($gw[0], 'much', "kill$_")->{status}, 200, 'CLIENT KILL') for 1 .. 3;

# kill -9: what finished is known exactly

my $finished = 0;

for my $round (1 .. ($long ? 20 : 3)) {
    ($n) = load(\@gw, 'much', 'killed', 2, 25, model => 'm', pause => 0.01,
                meanwhile => sub {
                    sleep 0.3;
                    $redis->kill;
                    sleep 0.3;
                    $redis->start;
                });
    $finished += $n->{200};
    is($n->{200} + ($n->{503} // 0), 100, "kill $round: passed or refused");

    $gw[0]->wait_for(sub {
        2 == grep { $_->client->get('/redis')->{body} eq 'up' } @gw;
    }, 20);
}

ok($gw[0]->wait_for(sub { ledger('much', 'killed')->{u} == $finished * 30 },
                    40), 'kills: ledger error 0')
    or diag(ledger('much', 'killed')->{u} . ' of ' . $finished * 30);

# a node that ends gives back what it has, and waits for the answers: that the
# script is not known is one of them

ask($gw[1], 'much', 'end', 'm');
$redis->cmd('SCRIPT', 'FLUSH');
my $start = time();
$gw[1]->stop(wait => 20);
cmp_ok(time() - $start, '<', 5, 'a node ends before "timeout" is over');
is(ledger('much', 'end')->{u}, 30, '... Redis knows what was used');
ok($gw[0]->wait_for(sub {
       my $l = ledger('much', 'killed');
       return $l->{g} == $l->{u};
   }, 30), 'at the end of a node nothing is left granted');

# what to do without Redis

$redis->stop;

$r = ask($gw[0], 'much', 'deny1');
is($r->{status}, 503, 'on_error deny: refused');
like($r->{body}, qr/"much\\?" cannot be checked/, 'on_error deny: why');
$redis->cont;

my $local = node(port => $slow->{port},
                 more => 'on_error local; nodes 4;');
my $allow = node(port => $slow->{port}, more => 'on_error allow;');

$local->wait_for(sub {
    2 == grep { $_->client->get('/redis')->{body} eq 'up' } $local, $allow;
}, 20);

is(ask($local, 'much', 'up')->{status}, 200, 'on_error local: Redis answers');

for my $case ([ 'stopped', sub { $redis->stop }, sub { $redis->cont } ],
              [ '+200 ms', sub { $slow->delay(0.2) },
                sub { $slow->delay(0) } ],
              [ '+5 s', sub { $slow->delay(5) }, sub { $slow->delay(0) } ])
{
    my ($name, $break, $heal) = @$case;
    my ($soon, $worst, $fine, $bad) = (0, 0, 0, 0);

    $break->();

    for my $i (1 .. 40) {
        my $start = time();
        my $s = ask($local, 'much', "new$name$i");
        my $took = time() - $start;

        $bad++ if $s->{status} != 200;
        $soon++ if $took < 0.015;
        $worst = $took if $took > $worst;

        $start = time();
        $local->client->get('/fine');
        $took = time() - $start;
        $fine = $took if $took > $fine;
    }

    is($bad, 0, "$name: all pass by the node's share");
    diag("$name: $soon soon, at most " . int($worst * 1000) . ' ms, others '
         . int($fine * 1000) . ' ms') if $ENV{TEST_AI_SHOW};

    # less than the time limit of Redis; the machine may do other things
    cmp_ok($soon, '>=', 10, "$name: not all wait for Redis");
    cmp_ok($worst, '<', 2, "$name: ... and not for long");
    cmp_ok($fine, '<', 2, "$name: no worker waits");
    is($local->client->get('/redis')->{body} =~ /open|down/, 1,
       "$name: the breaker is open");

    my $passed = grep { ask($allow, 'day', "allow$name")->{status} == 200 }
                 1 .. 20;
    is($passed, 20, "$name: on_error allow");

    # money is refused as default is, here it is not asked for

    $heal->();

    ok($local->wait_for(sub {
           $local->client->get('/redis')->{body} eq 'up'
       }, 40), "$name: recovery");
}

# a share, and not more, while Redis is away; told when it is back

$redis->kill;
$local->wait_for(sub { $local->client->get('/redis')->{body} ne 'up' }, 20);

($n) = load([ $local ], 'day', 'share', 4, 40);
cmp_ok($n->{200}, '<=', 300 / 1, 'share: no more than that');
cmp_ok($n->{200}, '>=', 300 / 4, 'share: as much as that');
my $alone = $n->{200};

$redis->start;
ok($local->wait_for(sub { ledger('day', 'share')->{u} == $alone }, 40),
   'share: Redis is told');
cmp_ok(ledger('day', 'share')->{g}, '>=', $alone, 'share: it is granted');

$local->stop;

# no append-only file

$redis->kill;
$redis->{conf} = '';
$redis->start;

my $warned = node();
ok($warned->wait_for(sub {
       $warned->error_log =~ /has no append-only file/
   }, 20), 'a warning that quotas would be forgotten');

# mistakes

sub bad {
    my ($name, $zone, $expected) = @_;

    my $gw = AI::Gateway->new(conf => <<"END");
events {}
http {
    ai_provider e { dialect static; text "one"; }
    ai_model s { target e/x; }
    ai_redis main { server 127.0.0.1:6379; }
    $zone
    server { listen 127.0.0.1:%%PORT_0%%; location / { ai_pass model; } }
}
END
    my ($rc, $out) = $gw->conf_test;
    isnt($rc, 0, "$name: refused");
    like($out, $expected, "$name: why");
    like($out, qr/in .*nginx\.conf:\d+/, "$name: where");
}

bad('no such redis', 'ai_limit_zone $uri zone=a requests=1/m redis=mein;',
    qr/zone "a": no ai_redis "mein", did you mean "main"\?/);
bad('redis twice',
    'ai_limit_zone $uri zone=a requests=1/m redis=main redis=main;',
    qr/invalid "redis=main"/);
bad('a snapshot beside it',
    'ai_quota_zone $uri zone=a requests=1/day redis=main snapshot=x;',
    qr/"snapshot" is of no use beside "redis"/);

done_testing();
