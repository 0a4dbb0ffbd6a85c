#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Answers that nodes share through Redis: ai_cache_zone redis=.  Two gateways;
# what happens when Redis is slow, dead, or has something else.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Time::HiRes qw(time sleep);

use AI::Kit;
use AI::Gateway;
use AI::Redis;

my $missing = AI::Gateway::missing() // AI::Redis::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'no module of the cache'
    if AI::Gateway::modules() && !grep { /cache/ } AI::Gateway::modules();

my $p = provider();
my $url = $p->url;
my $slow = AI::Kit::checked() ? 5 : 1;
my $redis = AI::Redis->new->start;
my $proxy = $redis->proxy;

sub node {
    my ($port, %opt) = @_;
    my $timeout = delete $opt{timeout} // '200ms';

    return gateway(<<"END", workers => 2, %opt, server => <<'END2');
    ai_cache_zone answers 2m redis=main;
    ai_cache_zone small 256k redis=main max_size=2k;
    ai_redis main { server 127.0.0.1:$port; timeout $timeout; }
    ai_provider p { dialect openai; endpoint $url; key none; }
END
    ai_cache_any on;
    add_header x-pid $pid always;

    location /v1/ {
        ai_pass model direct=on;
        ai_cache answers ttl=1h scope=$http_x_scope;
    }

    location /short/ {
        ai_pass model direct=on;
        ai_cache answers ttl=3s stale=1h scope=global;
    }

    location /small/ {
        ai_pass model direct=on;
        ai_cache small ttl=1h scope=global;
    }

    location = /cache { ai_cache_purge answers; }
    location = /small { ai_cache_purge small; }
END2
}

sub ask {
    my ($gw, $q, %opt) = @_;
    my $body = chat($opt{model} // 'p/n:20', stream => $opt{stream});

    $body->{messages}[0]{content} = "question $q";

    return $gw->client->post($opt{path} // '/v1/chat/completions', $body,
                             headers => [ 'X-Scope' => $opt{scope} // 'a' ]);
}

# HIT, MISS, ...; an answer is told before it is stored

sub how {
    my $how = ask(@_)->{headers}{'x-ai-cache'} // 'none';
    return $how eq 'COALESCED' ? 'HIT' : $how;
}

sub figures { return $_[0]->client->get($_[1] // '/cache')->json }

sub purge { return $_[0]->client->post('/cache', $_[1]) }

sub keys_of {
    my @keys = sort grep { !/purges/ } @{ $redis->cmd('KEYS', $_[0]) };
    return @keys;
}

# it has asked for purges, and its Redis is used

sub ready {
    my ($gw) = @_;
    my $n = 0;

    return $gw->wait_for(sub {
        my $had = figures($gw)->{redis}{misses};
        ask($gw, 'ready ' . ++$n . rand);
        return figures($gw)->{redis}{misses} > $had;
    }, 10 * $slow);
}

# stored in Redis

sub stored {
    my ($n, $pattern) = @_;
    my $end = time() + 15 * $slow;

    while (time() < $end) {
        return 1 if keys_of($pattern // '*:answers:*') == $n;
        sleep 0.02;
    }

    return;
}

# a name that is none

my $gw = AI::Gateway->new(conf => <<"END");
events { }
http {
    ai_redis main { server 127.0.0.1:$redis->{port}; }
    ai_cache_zone answers 2m redis=mein;
}
END

my ($rc, $said) = $gw->conf_test;
ok $rc, 'no such ai_redis';
like $said, qr/cache zone "answers": no ai_redis "mein", did you mean "main"\? in .*:4/,
    '... as it says';

# two nodes

my $one = node($redis->{port});
my $two = node($redis->{port});

ok ready($_), 'Redis is used' for $one, $two;

# what was asked for to see it may still be on its way

my $was = -1;

while ((my $now = keys_of('*')) != $was) {
    $was = $now;
    sleep 1;
}

$redis->cmd('FLUSHDB');

is how($one, 1), 'MISS', 'a question';
ok stored(1), 'is in Redis';
my ($key) = keys_of('*');
like $key, qr/^nginx_ai:cache:answers:\{[0-9a-f]{64}\}$/, 'its key';
my $ttl = $redis->cmd('PTTL', $key);
ok $ttl =~ /^\d+$/ && $ttl > 3500000 && $ttl <= 3600000, 'it expires';

$p->reset;
my $r = ask($two, 1);
is $r->{headers}{'x-ai-cache'}, 'HIT', 'another node has it';
is $r->json->{choices}[0]{message}{content},
    join(' ', map { "w$_" } 1 .. 20), '... the whole of it';
is figures($two)->{redis}{hits}, 1, '... from Redis';
is how($two, 1), 'HIT', 'again';
is figures($two)->{redis}{hits}, 1, '... from its memory';
is how($two, 2, stream => 1), 'MISS', 'a stream';
ok stored(2), 'is in Redis';
$r = ask($one, 2, stream => 1);
is $r->{headers}{'x-ai-cache'}, 'HIT', '... and found by the other node';
is $r->text, join(' ', map { "w$_" } 1 .. 20), '... the whole of it';
is scalar(requests($p)), 1, 'one request for both';

# a stale one here, a fresh one there

my @short = (path => '/short/chat/completions');
is how($one, 'short', @short), 'MISS', 'one that is stale soon';
ok stored(3), '... in Redis';
is how($two, 'short', @short), 'HIT', '... on both nodes';
sleep 3.2;
like how($one, 'short', @short), qr/^(?:EXPIRED|MISS)$/,
    'one asks for it again';
sleep 0.7;
is how($two, 'short', @short), 'HIT', 'and the other finds the younger one';

# what is too large, what is damaged

my @small = (path => '/small/chat/completions', model => 'p/n:8');
is how($one, 'small', @small), 'MISS', 'another zone';
ok stored(1, '*:small:*'), '... has keys of its own';
my ($other) = keys_of('*:small:*');
my $value = $redis->cmd('GET', $other);
my %damage = (cut => substr($value, 0, length($value) - 1), empty => '',
              other => $redis->cmd('GET', $key), text => 'x' x 500,
              long => $value . 'x' x 3000);

for my $name (sort keys %damage) {
    my $n = figures($two, '/small')->{redis}{corrupt};
    $redis->cmd('SET', $other, $damage{$name});
    is how($two, 'small', @small), 'MISS', "a value that is $name is a miss";
    is figures($two, '/small')->{redis}{corrupt}, $n + 1, '... counted';
    $two->reload;
    stored(1, '*:small:*');
    my $end = time() + 15 * $slow;
    sleep 0.02 while $redis->cmd('GET', $other) eq $damage{$name}
                     && time() < $end;
    isnt $redis->cmd('GET', $other), $damage{$name}, '... and replaced';

    # so that memory has nothing
    $two->client->post('/small', { all => JSON::PP::true() });
    sleep 1.1;
}

$redis->cmd('DEL', $other);
$redis->cmd('LPUSH', $other, 'x');
is how($two, 'small', @small), 'MISS', 'another type of value is a miss';

# purges

is how($_, 3), $_ == $one ? 'MISS' : 'HIT', 'a question' for $one, $two;
is how($_, 4, scope => 'b'), $_ == $one ? 'MISS' : 'HIT', 'of another scope'
    for $one, $two;

my $start = time();
is purge($one, { scope => 'a' })->{status}, 200, 'a purge on one node';
ok $two->wait_for(sub { how($two, 3) ne 'HIT' }, 3 * $slow),
    'is in force on the other';
cmp_ok time() - $start, '<', 3 * $slow, '... soon';
is how($two, 4, scope => 'b'), 'HIT', 'another scope is not concerned';
sleep 1.2;
is how($one, 3), 'MISS', 'what is asked for later';
is how($one, 3), 'HIT', '... is stored';
$start = time();
sleep 0.02 while how($two, 3) ne 'HIT' && time() - $start < 15 * $slow;
cmp_ok time() - $start, '<', 15 * $slow, '... also for the other node';

# a node that was not there when it was purged

$two->stop;
is how($one, 5), 'MISS', 'a question';
is purge($one, { scope => 'a' })->{status}, 200, 'a purge while a node is down';
$two->start;
is how($two, 5), 'MISS', 'it is in force when the node comes up';

my $bad = 0;

for (1 .. 300) {
    $bad++ if purge($one, { tag => "tag $_" })->{status} != 200;
}

is $bad, 0, 'many purges';
sleep 1;
cmp_ok $redis->cmd('ZCARD', 'nginx_ai:cache:answers:{purges}'), '<=', 257,
    'are a bounded number in Redis';
$two->wait_for(sub { figures($two)->{purges} > 200 }, 5 * $slow);
my $rules = figures($two)->{purges};
ok $rules > 200 && $rules <= 257, '... and on the other node';

$redis->cmd('DEL', 'nginx_ai:cache:answers:{purges}');
ok $one->wait_for(sub {
    ($redis->cmd('ZCARD', 'nginx_ai:cache:answers:{purges}') // 0) > 200
}, 3 * $slow), 'a Redis that has lost them is told again';

# what Redis says of purges is not understood

my $three = node($redis->{port}, allow => []);
$redis->cmd('FLUSHDB');
$redis->cmd('ZADD', 'nginx_ai:cache:answers:{purges}', 9999999999999,
            'nonsense');
ok $three->wait_log(qr/of the purges of zone "answers" is not understood/),
    'strange purges';
is how($one, 6), 'MISS', 'a question';
stored(1);
sleep 2;
is how($three, 6), 'MISS', '... Redis is not used then';
$redis->cmd('FLUSHDB');
$three->finish;

# a stale answer that another worker replaces while Redis is asked for a younger
# one, and has none: the one that is there now is used

{
    my $gw = node($proxy->{port}, timeout => '5s', listen => 'reuseport');
    my ($met, $twice) = (0, 0);

    ok ready($gw), 'two workers behind a proxy';

    my %path = (path => '/short/chat/completions');
    ask($gw, "late $_", %path) for 1 .. 16;
    ok $gw->wait_for(sub { keys_of('*:answers:*') > 16 }, 5 * $slow),
        'sixteen questions';
    sleep 3.2;
    $redis->cmd('DEL', keys_of('*:answers:*'));

    for my $round (1 .. 16) {
        my $body = chat('p/n:20');
        $body->{messages}[0]{content} = "question late $round";

        $p->reset;
        $redis->cmd('DEL', $_) for keys_of('*:answers:*');
        $proxy->delay(0.8);
        my $first = $gw->client->open($path{path}, $body);
        sleep 0.1;
        $proxy->delay(0);

        my $start = time();
        my $second = ask($gw, "late $round", %path);
        my $early = time() - $start < 0.2;

        if ($early && stored(1)) {
            # and nothing in Redis
            $redis->cmd('DEL', keys_of('*:answers:*'));
        }

        $first->finish;

        $twice++ if requests($p) != 1;
        next if $first->{headers}{'x-pid'} == $second->{headers}{'x-pid'};

        # its Redis was asked before the other one's answer was there
        $met++ if $early && $second->{headers}{'x-ai-cache'} eq 'EXPIRED'
                  && $first->{headers}{'x-ai-cache'} eq 'HIT';
        last if $met;
    }

    is $twice, 0, 'one of two asks the provider';
    is $met, 1, '... and the other one finds its answer';
    $gw->finish;
}

# slow and dead

sleep 1.5;
my $lame = node($proxy->{port});
ok ready($lame), 'a node behind a proxy';
is how($lame, 7), 'MISS', 'a question';
is how($lame, 7), 'HIT', '... is in memory';
$proxy->delay(3);

my $longest = 0;

for (8 .. 13) {
    my $start = time();
    my $r = ask($lame, $_);
    my $took = time() - $start;

    $longest = $took if $took > $longest;
    $bad++ if $r->{status} != 200
              || $r->{headers}{'x-ai-cache'} ne 'MISS';
}

is $bad, 0, 'a slow Redis is a miss';
cmp_ok $longest, '<', 2 * $slow, '... in time';
is how($lame, 7), 'HIT', 'memory is asked first';
$proxy->delay(0);
ok ready($lame), 'it is used again';

$redis->kill;
$longest = 0;

for (20 .. 25) {
    my $start = time();
    $bad++ if how($one, $_) ne 'MISS';
    $bad++ if how($one, $_) ne 'HIT';
    my $took = time() - $start;
    $longest = $took if $took > $longest;
}

is $bad, 0, 'a dead Redis is a miss';
cmp_ok $longest, '<', 2 * $slow, '... in time';
is purge($one, { scope => 'a' })->{status}, 200, 'a purge meanwhile';
is how($one, 20), 'MISS', '... is in force here';
$redis->start;
$start = time();
ok $one->wait_for(sub {
    ($redis->cmd('ZCARD', 'nginx_ai:cache:answers:{purges}') // 0) > 0
}, 10 * $slow), 'Redis is told of it when it is back';
ok ready($one), 'and used again';

done_testing();
