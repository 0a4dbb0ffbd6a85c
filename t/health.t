#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# ai_health: alive, ready, draining, and what it waits for.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use IO::Socket::INET;
use JSON::PP;
use Test::More;

use AI::Kit;
use AI::Gateway;
use AI::Keys;
use AI::Redis;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

my $keys = AI::Keys->new;
$keys->add('alice');

my $server = <<'END';
        location = /live  { ai_health live; }
        location = /ready { ai_health ready drain=%%DIR%%/drain; }
        location = /data  { ai_health ready require=data; }
        location = /key   { ai_auth key; return 200; }
END

my $gw = gateway('ai_data %%DIR%% interval=50ms;',
                 files => { 'keys.json' => $keys->text }, server => $server);
my $c = $gw->client;

sub answer {
    my ($path) = @_;
    my $r = $gw->client->get($path);

    return "$r->{status} " . ($r->json->{status} // '')
           . join '', map { ", $_" } @{ $r->json->{reasons} // [] };
}

for my $path ('/live', '/ready', '/data') {
    is(answer($path), '200 ok', $path);
}

my $r = $c->get('/ready');
is($r->{headers}{'content-type'}, 'application/json', 'its type');
is($r->{headers}{'cache-control'}, 'no-store', '... is not kept');
is($r->{body}, "{\"status\":\"ok\"}\n", '... its body');

$r = $c->request('HEAD', '/ready');
is($r->{status}, 200, 'HEAD');
is($c->post('/ready', '{}')->{status}, 405, 'POST');

# bad live data: what was good is in force, but it is not what is in the file

my $stale = '503 unavailable, data keys is not what its file is';
my $good = $gw->read_file('keys.json');

$gw->write_file('keys.json', '{"keys":[{]}');
ok($gw->wait_for(sub { answer('/data') eq $stale }), 'a bad file');
is(answer('/ready'), '200 ok', '... is no reason where it is not required');

$gw->write_file('keys.json', $good);
ok($gw->wait_for(sub { answer('/data') eq '200 ok' }), '... until it is good');

unlink $gw->dir . '/keys.json';
ok($gw->wait_for(sub { answer('/data') eq $stale }), 'a file that is gone');
is(answer('/ready'), '200 ok', '... is no reason where it is not required');

# a file that says so

$gw->write_file('drain', '');
is(answer('/ready'), '503 draining', 'told to drain');
is(answer('/live'), '200 ok', '... alive');
unlink $gw->dir . '/drain';
is(answer('/ready'), '200 ok', '... no more');

# a request that has begun before the end

my @open = map {
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                  PeerPort => $gw->port, Timeout => 5);
    print $s "GET $_ HTTP/1.0\r\n";
    $s->flush;
    $s;
} '/ready', '/live';

ok($gw->wait_for(sub { active($gw) == 2 }), 'two requests have begun');
kill 'QUIT', $gw->master;
$gw->wait_log(qr/gracefully shutting down/);
select undef, undef, undef, 0.2;

my @got = map {
    my $s = $_;
    print $s "\r\n";
    local $/;
    <$s> // '';
} @open;

like($got[0], qr/ 503 .*\{"status":"draining"\}/s, 'nginx ends: not ready');
like($got[1], qr/ 200 .*\{"status":"ok"\}/s, '... alive');

# Redis

SKIP: {
    my $none = AI::Redis->missing;
    skip $none, 5 if $none;

    my $redis = AI::Redis->new->start;
    my $port = $redis->{port};

    $gw = gateway(<<"END", workers => 2, server => <<'SERVER');
    ai_redis main { server 127.0.0.1:$port; timeout 100ms; }
END
        location = /redis { ai_health ready require=redis; }
        location = /ready { ai_health ready; }
SERVER

    ok($gw->wait_for(sub { answer('/redis') eq '200 ok' }), 'Redis is there');

    $redis->kill;
    ok($gw->wait_for(sub { answer('/redis')
                           eq '503 unavailable, redis main has no connection'
                         }), '... is gone');
    is(answer('/ready'), '200 ok', '... which is not asked for');

    $redis->start;
    ok($gw->wait_for(sub { answer('/redis') eq '200 ok' }), '... is back');

    $gw->stop;

    # a worker without a connection says so from the beginning

    $redis->kill;
    $gw->start;
    like(answer('/redis'), qr/^503 unavailable/, 'Redis was never there');
}

# mistakes

sub refused {
    my ($directive, $pattern) = @_;

    my $bad = AI::Gateway->new(conf => <<"END");
events {}
http {
    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { $directive }
    }
}
END
    my ($rc, $out) = $bad->conf_test;
    ok($rc != 0, "refused: $directive");
    like($out, $pattern, '... why');
}

refused('ai_health;', qr/invalid number of arguments.*nginx\.conf:5/);
refused('ai_health alive;', qr/it is "live" or "ready".*nginx\.conf:5/);
refused('ai_health raedy;', qr/did you mean "ready"/);
refused('ai_health live drain=x;', qr/"ai_health ready" may have it/);
refused('ai_health ready requires=data;', qr/did you mean "require="/);
refused('ai_health ready drain=;', qr/unknown parameter "drain="/);
refused('ai_health ready drain=a drain=b;', qr/has "drain=" twice/);
refused('ai_health ready require=rediss;', qr/did you mean "redis"/);
refused('ai_health ready require=data,;', qr/unknown "" of "require="/);
refused('ai_health ready require=data,data;', qr/requires "data" twice/);
refused('ai_health ready require=redis;', qr/needs an "ai_redis".*nginx\.conf:5/);
refused('ai_health ready require=data;', qr/needs an "ai_data".*nginx\.conf:5/);
refused('ai_health live; ai_health ready;', qr/is duplicate/);

done_testing();
