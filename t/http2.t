#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Clients that speak HTTP/2: hazards 4, 9, 10 and 23 with streams of one
# connection.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Time::HiRes qw(time sleep);

use AI::Kit;
use AI::Gateway;
use AI::H2;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

my $p = provider();
my $url = $p->url;

my $gw = gateway(<<"END", listen => 'http2');
    client_max_body_size 8m;

    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_provider a { dialect anthropic; endpoint $url; key none; }
    ai_provider d { dialect openai; endpoint $url; key none; abort drain; }

    ai_model unary   { target p/n:5; }
    ai_model cross   { target a/n:5; }
    ai_model large   { target p/n:3000; }
    ai_model slow    { target p/n:60+pace:100; }
    ai_model hang    { target p/hang; }
    ai_model backoff { target p/status:503; retry 1 backoff=20s..20s; }
    ai_model drain   { target d/n:20+pace:100+usage:33.44; }
    ai_model bad     { target p/status:503; retry off; }
END

my $path = '/v1/chat/completions';
my $client = $gw->client;
my $words = join ' ', map { "w$_" } 1 .. 5;
my $n = 0;

# whole answers

for my $model ('unary', 'cross') {
    my $r = $client->h2($path, chat($model));
    is($r->{status}, 200, "$model: status");
    is($r->json->{choices}[0]{message}{content}, $words, "$model: answer");
    is($r->{headers}{'content-type'}, 'application/json', "$model: type");

    $r = $client->h2($path, chat($model, stream => 1));
    is($r->text, $words, "$model, streamed: answer");
    like($r->{headers}{'content-type'}, qr{^text/event-stream},
         "$model, streamed: type");
    like($r->{body}, qr/data: \[DONE\]\n\n\z/, "$model, streamed: end");
}

for my $stream (0, 1) {
    my $r = $client->h2($path, chat('large', stream => $stream));
    my $text = $stream ? $r->text : $r->json->{choices}[0]{message}{content};

    is(length $text, length(join ' ', map { "w$_" } 1 .. 3000),
       'large answer' . ($stream ? ', streamed' : ''));
}

# errors in the client's dialect

my $r = $client->h2($path, chat('bad'));
is($r->{status}, 503, 'error');
is($r->json->{error}{message}, 'failed: 503', 'error: message');

$r = $client->h2($path, chat('nothing'));
is($r->{status}, 404, 'unknown model');

$r = $client->h2('/v1/messages', { max_tokens => 9, %{ chat('nothing') } });
is($r->json->{type}, 'error', 'unknown model, the other dialect');

# large bodies, in frames as they come, through memory and a file

for my $size (16_000, 70_000, 2_000_000) {
    $p->reset;

    my $file = "body-$size";
    $gw->write_file($file, JSON::PP->new->encode({
        model => 'unary',
        messages => [ { role => 'user', content => 'x' x $size } ] }));

    $r = $client->h2($path, undef, curl => [
        '-H', 'Content-Type: application/json',
        '--data-binary', '@' . $gw->dir . "/$file" ]);

    is($r->{status}, 200, "body of $size: status");

    my ($entry) = $p->log;
    is(length($entry->{json}{messages}[0]{content}
              // eval { JSON::PP::decode_json($entry->{body})
                        ->{messages}[0]{content} } // ''),
       $size, "body of $size: complete");
}

# streams of one connection do not disturb each other

my $c = AI::H2->new(port => $gw->port(0));
my @s = map { $c->request("$path?s$_", chat('slow', stream => 1)) } 1 .. 6;

ok($c->wait(sub { !grep { $_->{body} !~ /w3/ } @s }), 'all have begun');

$c->rst($s[$_]) for 1, 3;

for (1, 3) {
    my $log = settled($gw, "$path?s" . ($_ + 1)) // {};
    is($log->{status}, 200, 'one is reset: settled once, as begun');
    is($log->{usage_state}, 'counted', 'one is reset: usage');
}

ok($c->wait(sub { !grep { !$_->{ended} } @s[0, 2, 4, 5] }),
   'the others end');
is(scalar(grep { $_->{status} == 200 && $_->{body} =~ /w40.*\[DONE\]\n\n\z/s
                 && !defined $_->{reset} } @s[0, 2, 4, 5]), 4,
   'the others are complete');
is(scalar(grep { $_->{hangup} } $p->log), 2, 'two are left at the provider');

# RST_STREAM at each phase; the connection lives on

for my $model (qw(hang backoff slow drain)) {
    $p->reset;
    my $s = $c->request("$path?$model", chat($model, stream => 1));
    my $end = time() + 15;

    while (time() < $end) {
        my ($first) = $p->log;

        last if $model =~ /slow|drain/ ? $s->{body} =~ /w2/
                : $model eq 'backoff' ? $first && $first->{end} : $first;
        $c->wait(sub { 0 }, 0.05);
    }

    $c->wait(sub { 0 }, 0.1);
    $c->rst($s);

    my $log = settled($gw, "$path?$model") // {};
    is($log->{status}, $model =~ /slow|drain/ ? 200 : 499,
       "reset, $model: settled once");

    if ($model eq 'drain') {
        is("$log->{usage_state} $log->{input_tokens} $log->{output_tokens}",
           'provider 33 44', 'reset, drain: figures');
        is(scalar(grep { $_->{hangup} } $p->log), 0, 'reset, drain: read');

    } elsif ($model ne 'backoff') {
        ok($p->wait_log(sub { grep { $_->{hangup} } @_ }, 5),
           "reset, $model: the provider is left");
    }

    is(scalar $p->log, 1, "reset, $model: asked once");
}

my $s = $c->request($path, chat('unary'));
ok($c->wait(sub { $s->{ended} }), 'the connection lives');
is($s->{status}, 200, 'and serves');

# a connection that is closed ends all its streams

$p->reset;
@s = map { $c->request("$path?c$_", chat('slow', stream => 1)) } 1 .. 20;
$c->wait(sub { !grep { $_->{body} !~ /w2/ } @s });
$c->close;

is(scalar(grep { (settled($gw, "$path?c$_") // {})->{status} } 1 .. 20), 20,
   'closed: all are settled once');
ok($p->wait_log(sub { 20 == grep { $_->{hangup} } @_ }, 5),
   'closed: the provider is left');

ok(idle_again($gw), 'no connection is left');
ok($gw->finish, 'clean');

done_testing();
