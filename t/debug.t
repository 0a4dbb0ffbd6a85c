#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Hazards 4, 6 and 7: everything that timers and foreign callbacks do, with the
# debug log on, which looks into what hangs on each event; a request ends once,
# whoever resumed it.  Nothing of ours writes a key or a prompt there.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Time::HiRes qw(sleep);

use AI::Kit;
use AI::Gateway;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'nginx without --with-debug'
    if `"$AI::Gateway::binary" -V 2>&1` !~ /--with-debug/;

my $p = provider();
my $url = $p->url;

# a name that never resolves, and one that is an address
my $gw = gateway(<<"END", level => 'debug', server => <<'SERVER');
    resolver 127.0.0.1:1 valid=1s;
    resolver_timeout 1s;

    ai_provider p { dialect openai; endpoint $url; key sk-CANARY-KEY;
                    timeout first=300ms idle=300ms total=1s; }
    ai_provider a { dialect anthropic; endpoint $url; key sk-CANARY-KEY; }
    ai_provider d { dialect openai; endpoint $url; key none; abort drain; }
    ai_provider n { dialect openai; endpoint http://no.such.example; key none;
                    timeout connect=200ms; }
    ai_provider s { dialect static; }

    ai_model plain   { target p/ok; }
    ai_model cross   { target a/ok; }
    ai_model retry   { target p/status:500+times:2; retry 3 backoff=5ms..9ms; }
    ai_model hang    { target p/hang; }
    ai_model total   { target p/pace:60+n:90; }
    ai_model idle    { target p/stall:2; }
    ai_model hedge   { target p/first:250; fallback a/ok; hedge 20ms; }
    ai_model hedge2  { target p/wait:80+rst; fallback a/first:200; hedge 20ms;
                       retry off; }
    ai_model breaks  { target p/status:503+n:3; retry off;
                       breaker 50%/10s min=2 open=100ms; }
    ai_model noname  { target n/ok; fallback p/ok; retry off; }
    ai_model recover { target p/cut:2+n:9; fallback a/n:9; recover restart; }
    ai_model drain   { target d/pace:20+n:30; }
    ai_model static  { target s/x; }
END
    location /v1/  { ai_pass model; }
    location /file/ { client_body_in_file_only clean; ai_pass model; }
SERVER

my %status = (hang => 504, breaks => 503);

for my $stream (0, 1) {
    for my $model (qw(plain cross retry hang total idle hedge hedge2 breaks
                      breaks breaks noname recover drain static none))
    {
        # these are about streams
        next if !$stream && $model =~ /total|idle|recover/;

        for my $path ('/v1/', '/file/') {
            my $r = $gw->client->post("${path}chat/completions",
                chat($model, stream => $stream, user => 'CANARY-PROMPT'));
            my $status = $model eq 'none' ? 404 : $status{$model} // 200;
            is($r->{status}, $status, "$path $model ($stream)");
            ok($r->{done}, '... whole');
        }
    }
}

for my $model (qw(plain hang total hedge hedge2 drain retry recover)) {
    for my $ms (1, 30, 120) {
        my @s = map { $gw->client->open('/v1/chat/completions',
                      chat($model, stream => 1)) } 1, 2;
        sleep $ms / 1000;
        $s[0]->abort;
        $s[1]->reset;
    }
}

ok(idle_again($gw), 'nothing is left');

my $log = $gw->error_log;
my @ours = grep { / ai [a-z]+: |ai router|ai peers|ai breaker|ai request/ }
           split /\n/, $log;

cmp_ok(scalar @ours, '>', 100, 'debug lines of ours');
is(scalar(grep { /CANARY/ } @ours), 0, '... without keys and prompts');

# each request is settled, logged and closed once
my (%opened, %closed);
$opened{$1}++ while $log =~ /\*(\d+) http process request line/g;
$closed{$1}++ while $log =~ /\*(\d+) http close request/g;
is(scalar(grep { ($closed{$_} // 0) > ($opened{$_} // 0) } keys %closed), 0,
   'no request is closed twice');

$gw->finish;

# a block of 8k for what takes three of 4k, unless there is another size
for (['', '', 8192], ['request_pool_size 4k;', '', 4096],
     ['request_pool_size 12k;', '', 12288], ['', 'request_pool_size 6k;', 6144],
     ['request_pool_size 12k;', 'request_pool_size 4k;', 4096])
{
    my ($http, $server, $size) = @$_;

    my $g = gateway(<<"END", level => 'debug', server => <<"SERVER");
    $http
    ai_provider p { dialect openai; endpoint $url; key none; }
END
    $server
    location /v1/ { ai_pass p; }
SERVER

    $g->client->post('/v1/chat/completions', chat('ok'));

    # the last one before a request is its own
    my ($made) = $g->error_log
        =~ /.*memalign: \S+:(\d+) \@16\n.*http process request line/s;

    is($made, $size, "request pool, http: '$http', server: '$server'");
    $g->finish;
}

done_testing();
