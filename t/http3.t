#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Clients that speak HTTP/3.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use File::Temp ();
use JSON::PP ();
use Test::More;
use Time::HiRes qw(time sleep);

use AI::Kit;
use AI::Cert;
use AI::Gateway;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

plan skip_all => 'this nginx has no HTTP/3'
    if !AI::Gateway::has('http_v3_module');
plan skip_all => 'this curl has no HTTP/3' if `curl -V` !~ /\bHTTP3\b/;

plan skip_all => 'no openssl' if !`openssl version 2>/dev/null`;

my $p = provider();
my $url = $p->url;

my $dir = File::Temp::tempdir(CLEANUP => 1);
my ($crt, $key) = AI::Cert->new(dir => $dir)->leaf([ '127.0.0.1' ]);

my $gw = gateway(<<"END", server => <<"SERVER");
    client_max_body_size 8m;

    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_provider a { dialect anthropic; endpoint $url; key none; }

    ai_model unary   { target p/n:5; }
    ai_model cross   { target a/n:5; }
    ai_model large   { target p/n:3000; }
    ai_model slow    { target p/n:40+pace:200; }
    ai_model bad     { target p/status:503; retry off; }
END
        listen 127.0.0.1:%%PORT_quic%% quic reuseport;
        ssl_certificate $crt;
        ssl_certificate_key $key;

        location /v1/ { ai_pass model direct=on; }
SERVER

my $path = '/v1/chat/completions';
my $client = $gw->client(n => 'quic');
my $words = join ' ', map { "w$_" } 1 .. 5;

# whole answers

for my $model ('unary', 'cross') {
    my $r = $client->h3($path, chat($model));
    is($r->{status}, 200, "$model: status") or diag $r->{error};
    is($r->json->{choices}[0]{message}{content}, $words, "$model: answer");

    $r = $client->h3($path, chat($model, stream => 1));
    is($r->text, $words, "$model, streamed: answer");
    like($r->{headers}{'content-type'}, qr{^text/event-stream},
         "$model, streamed: type");
    like($r->{body}, qr/data: \[DONE\]\n\n\z/, "$model, streamed: end");
}

for my $stream (0, 1) {
    my $r = $client->h3($path, chat('large', stream => $stream));
    my $text = $stream ? $r->text : $r->json->{choices}[0]{message}{content};

    is(length $text, length(join ' ', map { "w$_" } 1 .. 3000),
       'large answer' . ($stream ? ', streamed' : ''));
}

# errors in the client's dialect

my $r = $client->h3($path, chat('bad'));
is($r->{status}, 503, 'error');
is($r->json->{error}{message}, 'failed: 503', 'error: message');

$r = $client->h3('/v1/messages', { max_tokens => 9, %{ chat('nothing') } });
is($r->{status}, 404, 'unknown model');
is($r->json->{type}, 'error', 'unknown model, the other dialect');

# large bodies, through memory and a file

for my $size (16_000, 70_000, 2_000_000) {
    my $file = "body-$size";
    $gw->write_file($file, JSON::PP->new->encode({
        model => 'unary',
        messages => [ { role => 'user', content => 'x' x $size } ] }));

    $p->reset;
    $r = $client->h3($path, undef, curl => [
        '-H', 'Content-Type: application/json',
        '--data-binary', '@' . $gw->dir . "/$file" ]);

    is($r->{status}, 200, "body of $size: status");

    my ($entry) = $p->log;
    my $json = $entry->{json} // JSON::PP::decode_json($entry->{body});
    is(length $json->{messages}[0]{content}, $size,
       "body of $size: complete");
}

# a client that leaves is settled once, and its provider left

$p->reset;

$r = $client->h3("$path?gone", chat('slow', stream => 1),
                 curl => [ '--max-time', 2 ]);
like($r->{body}, qr/w3/, 'client leaves: it has begun');
unlike($r->{body}, qr/w40/, 'client leaves: it is not complete');

my $log = settled($gw, "$path?gone") // {};
is($log->{usage_state}, 'counted', 'client leaves: usage');
ok(scalar(grep { $_->{hangup} } $p->log), 'client leaves: the provider too');

$gw->finish;

done_testing();
