#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Hazard 23: bodies of any size, in memory, in a temporary file, in both, with
# and without a length, over HTTP/1.1 and HTTP/2, arrive whole; and what is no
# acceptable body goes nowhere.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Time::HiRes ();

use AI::Kit;
use AI::Gateway;
use AI::Provider;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

# tells length and a sum of what it got

my $p = AI::Provider->start(handler => sub {
    my ($req) = @_;
    my $body = $req->{body};
    my $text = length($body) . '.' . unpack('%32C*', $body) . '.'
               . ($body =~ /"model":"up"/ ? 'up' : 'other');

    return json_script(200, openai_body(text => $text));
}, raw => 1);

my $url = $p->url;
my $locations = join "\n", map {
    "location /$_->[0]/ { client_body_buffer_size $_->[1]; $_->[2] "
    . 'ai_pass model; }'
} ([ 'b4k', '4k', '' ], [ 'b16k', '16k', '' ],
   [ 'file', '16k', 'client_body_in_file_only clean;' ],
   [ 'single', '16k', 'client_body_in_single_buffer on;' ],
   [ 'm1', '1m', '' ], [ 'small', '16k', 'client_max_body_size 10k;' ],
   [ 'max', '16k', 'ai_max_body 10k;' ],
   [ 'stream', '16k', 'proxy_request_buffering off;' ]);

my $http = <<"END";
    client_max_body_size 8m;
    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_model m { target p/up; }
END

my $gw = gateway($http, server => $locations);

# another server of the same kind that speaks HTTP/2
my $gw2 = gateway($http, server => $locations, listen => 'http2');

# a body of this many bytes, with its model in front or at the end

sub body_of {
    my ($size, $end) = @_;
    my ($head, $tail) = $end
        ? ('{"messages":[{"role":"user","content":"', '"}],"model":"m"}')
        : ('{"model":"m","messages":[{"role":"user","content":"', '"}]}');

    my $n = $size - length($head) - length($tail);
    my $line = join '', map { chr(97 + $_ % 26) } 0 .. 996;

    return $head . substr($line x (1 + $n / length $line), 0, $n) . $tail;
}

sub expected {
    my ($body) = @_;
    $body =~ s/"model":"m"/"model":"up"/;
    return length($body) . '.' . unpack('%32C*', $body) . '.up';
}

sub text {
    my ($r) = @_;
    my $json = $r->json // return "status $r->{status} " . ($r->{error} // '');
    return $json->{choices}[0]{message}{content} // $r->{body};
}

my @sizes = (100, 1023, 1024, 4095 .. 4097, 8191 .. 8193, 16383 .. 16385,
             16500, 32768, 100_000);

for my $location (qw(b4k b16k file single m1 stream)) {
    my @bad;

    for my $size (@sizes) {
        for my $end (0, 1) {
            my $body = body_of($size, $end);
            my $is = expected($body);
            my $path = "/$location/chat/completions";
            my $client = $gw->client;

            push @bad, "$size" if text($client->post($path, $body)) ne $is;
            push @bad, "$size chunked"
                if text($client->post($path, $body, chunked => 1)) ne $is;

            # the header alone; a part with the header, the rest later
            for my $part (0, 700) {
                my $s = $client->open($path, $body, send => $part);
                select undef, undef, undef, 0.002;
                $s->write(substr $body, $part) if $part < $size;
                $s->finish;
                push @bad, "$size split at $part" if text($s) ne $is;
            }
        }
    }

    is("@bad", '', "$location: sizes around the buffer's");
}

for my $location (qw(b16k file m1)) {
    my @bad;

    for my $size (@sizes[0, 5, 8, 10, 14], 2_000_000) {
        my $body = body_of($size, 1);
        my $file = $gw2->write_file('body', $body);
        my $r = $gw2->client->h2("/$location/chat/completions", undef,
            headers => [ 'Content-Type' => 'application/json' ],
            curl => [ '--data-binary', "\@$file" ]);

        push @bad, "$size: " . text($r) if text($r) ne expected($body);
    }

    is("@bad", '', "$location: HTTP/2");
}

for my $location (qw(b4k file single m1)) {
    my $body = body_of(2_097_152, 0);
    is(text($gw->client->post("/$location/chat/completions", $body)),
       expected($body), "$location: 2 MB");
    is(text($gw->client->post("/$location/chat/completions", $body,
                              chunked => 1)),
       expected($body), "$location: 2 MB, chunked");
}

# 16 at once

my $body = body_of(300_000, 1);
my @s = map { $gw->client->open('/b16k/chat/completions', $body) } 1 .. 16;
$_->finish for @s;
is(scalar(grep { text($_) eq expected($body) } @s), 16, 'several at once');

my $asked = () = $p->log;
cmp_ok($asked, '>', 500, 'requests');


# what is refused

sub refused {
    my ($name, $r, $status, $message, $param) = @_;
    my $error = ($r->json // {})->{error} // {};

    is($r->{status}, $status, "$name: status") or diag($r->{body});
    like($error->{message} // '', $message, "$name: message");
    is($error->{param}, $param, "$name: param");
    like($r->{headers}{'content-type'}, qr{^application/json},
         "$name: is JSON");
}

my $path = '/b16k/chat/completions';
my $c = $gw->client;

refused("body " . substr($_->[0] =~ s{\n}{ }r, 0, 40), $c->post($path, $_->[0]), 400, $_->[1], $_->[2])
    for [ '{"model":"m",', qr/could not parse the request body as JSON.*byte/ ],
        [ '{"model":"m"} x', qr/could not parse/ ],
        [ '{"model":"m","a":01}', qr/could not parse/ ],
        [ '{"model":"m" "a":1}', qr/could not parse/ ],
        [ "{\"model\":\"m\",\"a\":\"\n\"}", qr/could not parse/ ],
        [ '', qr/could not parse/ ],
        [ '[1]', qr/must be a JSON object/ ],
        [ '"m"', qr/must be a JSON object/ ],
        [ '{}', qr/provide a "model" as a string/, 'model' ],
        [ '{"model":7}', qr/provide a "model" as a string/, 'model' ],
        [ '{"model":null}', qr/provide a "model" as a string/, 'model' ],
        [ '{"model":""}', qr/provide a "model" as a string/, 'model' ],
        [ '{"model":"m","x":{"model":"m"},"model":"m"}',
          qr/"model" is given more than once/, 'model' ],
        [ '{"model":"m","\u006dodel":"m"}',
          qr/"model" is given more than once/, 'model' ],
        [ '{"model":"' . 'x' x 257 . '"}', qr/longer than 256/, 'model' ],
        [ '{"model":"m","messages":[],"stream":"yes"}',
          qr/"stream" must be true or false/, 'stream' ];

# a deep value is skipped, not recursed into, but it is limited
refused('depth', $c->post($path, '{"model":"m","x":' . '[' x 200 . ']' x 200
                                 . '}'),
        400, qr/limit.*ai_max_depth/, undef);
refused('a million brackets', $c->post($path, '{"model":"m","x":'
                                              . '[' x 1_000_000),
        400, qr/limit.*ai_max_depth/, undef);

refused('ai_max_body', $c->post('/max/chat/completions', body_of(10241)), 413,
        qr/larger than 10240 bytes \(ai_max_body\)/, undef);
refused('ai_max_body, chunked', $c->post('/max/chat/completions',
        body_of(10241), chunked => 1), 413, qr/ai_max_body/, undef);
is(text($c->post('/max/chat/completions', body_of(10240))),
   expected(body_of(10240)), 'ai_max_body: just so');
$asked++;

refused('client_max_body_size', $c->post('/small/chat/completions',
        body_of(20000)), 413, qr/client_max_body_size/, undef);
refused('client_max_body_size, chunked', $c->post('/small/chat/completions',
        body_of(20000), chunked => 1), 413, qr/client_max_body_size/, undef);

my $r = $c->post('/small/messages', body_of(20000));
is($r->{status}, 413, "client_max_body_size: Anthropic's status");
is(($r->json // {})->{error}{type}, 'request_too_large', '... and error');
is($r->json->{type}, 'error', '... and form');

refused('gzip', $c->post($path, "\x1f\x8b\x08", headers =>
        [ 'Content-Encoding' => 'gzip' ]), 415, qr/content-encoding/, undef);
is(text($c->post($path, body_of(100), headers =>
                 [ 'Content-Encoding' => 'identity' ])),
   expected(body_of(100)), 'identity');
$asked++;

for my $method (qw(GET PUT DELETE)) {
    $r = $c->request($method, $path);
    refused("method $method", $r, 405, qr/method $method is not allowed/,
            undef);
    is($r->{headers}{allow}, 'POST', '... Allow');
}

is(scalar(() = $p->log), $asked, 'nothing of this was sent to the provider');

# hazard 22: an event loop busy with a large body

my $large = '{"model":"m","messages":[' . join(',', ('{"role":"user"}')
            x 200_000) . ']}';
my $busy;

cmp_ok(at_best(0.5, sub {
           $busy = $c->open('/m1/chat/completions', $large);

           my $t = Time::HiRes::time();
           active($gw);
           $t = Time::HiRes::time() - $t;

           $busy->finish;

           return $t;
       }), '<', 0.5, 'others do not wait for a large body');
is($busy->{status}, 200, '... which is answered');

# a client that leaves, or is silent, within its body (hazard 9: 408)

my $s = $c->open($path, body_of(50_000), send => 20_000);
select undef, undef, undef, 0.05;
$s->abort;
$s = $c->open($path, body_of(50_000), send => 20_000);
$gw->wait_for(sub { active($gw) > 0 });
select undef, undef, undef, 0.3;
$s->reset;

ok(idle_again($gw), 'connections are gone');
ok($gw->wait_for(sub {
       2 <= grep { /"usage_state":"none"/ && /"status":"(?:400|499)"/ }
            $gw->access_log;
   }), 'and logged');

$gw->finish;
$gw2->finish;

done_testing();
