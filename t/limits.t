#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Limits of resources: each ai_max_* directive with its default, effect and
# error; ai_zone and ai_memory_retain.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use AI::Kit;
use AI::Gateway;
use AI::Provider;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

# an answer of many kinds; the size or depth is the model's name, "kind-n"

my $p = AI::Provider->start(handler => sub {
    my ($req) = @_;
    my ($kind, $n) = $req->{body} =~ /"model":"(\w+)-(\d+)"/;
    my $stream = $req->{body} =~ /"stream":true/;
    my $head = [ 'head', 200, [ 'Content-Type' => $stream
                                ? 'text/event-stream' : 'application/json' ] ];
    my $event = sub {
        my ($text, $more) = @_;
        return 'data: {"choices":[{"index":0,"delta":{"content":"'
               . $text . '"},"finish_reason":null}]' . ($more // '')
               . "}\n\n";
    };
    my $body = sub {
        my ($text, $more) = @_;
        return '{"object":"chat.completion","choices":[{"index":0,"message":{'
               . "\"role\":\"assistant\",\"content\":\"$text\"},"
               . '"finish_reason":"stop"}],"usage":{"prompt_tokens":1,'
               . '"completion_tokens":1}' . ($more // '') . '}';
    };
    my @parts;

    if ($kind eq 'answer') {
        my $empty = length $body->('');
        @parts = ($body->('x' x ($n - $empty)));

    } elsif ($kind eq 'event') {
        # this event as a whole; a short one is before it
        my $empty = length $event->('');
        @parts = ($event->('first'), $event->('x' x ($n - $empty)),
                  "data: [DONE]\n\n");

    } elsif ($kind eq 'first') {
        my $empty = length $event->('');
        @parts = ($event->('x' x ($n - $empty)), "data: [DONE]\n\n");

    } elsif ($kind eq 'before') {
        # comments before the first content
        @parts = ((': ' . 'x' x 96 . "\n\n") x int($n / 100), $event->('a'),
                  "data: [DONE]\n\n");

    } elsif ($kind eq 'depth') {
        my $deep = ',"x":' . '[' x ($n - 1) . ']' x ($n - 1);
        @parts = $stream
                 ? ($event->('a', $deep), "data: [DONE]\n\n")
                 : ($body->('a', $deep));

    } elsif ($kind eq 'nodes') {
        @parts = ($body->('a', ',"x":[' . join(',', (1) x $n) . ']'));

    } elsif ($kind eq 'header') {
        # in several lines, of which none is too long
        push @{ $head->[2] }, map { ("X-Fill-$_", 'x' x 88) }
                              10 .. 9 + int($n / 100);
        @parts = $stream ? ($event->('a'), "data: [DONE]\n\n")
                         : ($body->('a'));
    }

    return [ $head, (map { [ 'chunk', $_ ] } @parts), [ 'end' ] ];
}, raw => 1);

my $q = provider();
my ($url, $other) = ($p->url, $q->url);

my $http = <<"END";
    client_max_body_size 40m;
    client_body_buffer_size 1m;
    proxy_busy_buffers_size 64k;
    proxy_buffers 8 32k;

    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_provider q { dialect openai; endpoint $other; key none; }
    ai_provider a { dialect anthropic; endpoint $other; key none; }
    ai_model claude { target a/ok; }
END

my %limit = (depth => 'ai_max_depth 20;', nodes => 'ai_max_nodes 100;',
             body => 'ai_max_body 2k;', answer => 'ai_max_answer 4k;',
             event => 'ai_max_event 2k;', header => 'ai_max_header 2k;');

my $gw = gateway($http, server => join "\n", map {
    my $set = $limit{$_} // '';
    "location /$_/ { $set ai_pass p; }\n"
    . "location /$_-fb/ { $set ai_fallback q/ok; ai_pass p; }\n"
    . "location /$_-m/ { $set ai_pass model; }\n"
} 'default', sort keys %limit);

sub ask {
    my ($location, $model, %body) = @_;
    return $gw->client->post("/$location/chat/completions",
                             chat($model, %body));
}

# of an answer that is not streamed or has not begun: failure of class
# invalid, so that somebody else may be asked

sub refused {
    my ($name, $location, $model, $message, %body) = @_;
    my $r = ask($location, $model, %body);
    my $error = ($r->json // {})->{error} // {};

    is($r->{status}, 502, "$name: refused") or diag(substr $r->{body}, 0, 300);
    is($error->{code}, 'invalid_answer', "$name: code");
    like($error->{message}, $message, "$name: message");

    my $retry = ask("$location-fb", $model, %body);
    is($retry->{status}, 200, "$name: fallback");
    is($retry->{headers}{'x-ai-provider'}, 'q', "$name: ... asked");
}

sub accepted {
    my ($name, $location, $model, %body) = @_;
    my $r = ask($location, $model, %body);
    ok($r->{status} == 200 && $r->{done} && $r->{body} !~ /"error"/,
       "$name: accepted") or diag("$r->{status} " . substr $r->{body}, 0, 300);
    return $r;
}

my @s = (stream => 1);

# ai_max_answer

accepted('answer of 4k', 'answer', 'answer-4096');
refused('answer over 4k', 'answer', 'answer-4097',
        qr/too large \(ai_max_answer\)/);
accepted('4k before the first content', 'answer', 'before-3900', @s);
refused('more before the first content', 'answer', 'before-8000',
        qr/too large \(ai_max_answer\)/, @s);
accepted('stream over 4k', 'answer', 'event-9000', @s);
accepted('default: 30 MB', 'default', 'answer-30000000');
refused('default: over 32 MB', 'default', 'answer-33554433',
        qr/ai_max_answer/);

# ai_max_event

accepted('event of 2k', 'event', 'first-2048', @s);
refused('first event over 2k', 'event', 'first-2049',
        qr/event that is too large \(ai_max_event\)/, @s);
my $r = ask('event', 'event-2049', @s);
is($r->text, 'first', 'a later event over 2k: what came before');
like($r->{body}, qr/ai_max_event.*incomplete_answer.*\n\n\z/s,
     '... and an error');
unlike($r->{body}, qr/\[DONE\]/, '... no proper end');
accepted('default: event of 1m', 'default', 'event-1048576', @s);
$r = ask('default', 'event-1048577', @s);
like($r->{body}, qr/ai_max_event/, 'default: over 1m');

# ai_max_depth, of answers and requests

accepted('depth 19', 'depth', 'depth-19');
refused('depth 22', 'depth', 'depth-22', qr/./);
accepted('depth 19, stream', 'depth', 'depth-19', @s);
accepted('default: depth 128', 'default', 'depth-128');
refused('default: depth 130', 'default', 'depth-130', qr/./);

sub request {
    my ($location, $more) = @_;
    return $gw->client->post("/$location/chat/completions",
        '{"model":"answer-500","messages":[{"role":"user","content":"x"}],"x":'
        . "$more}");
}

sub limited {
    my ($name, $r, $status, $message) = @_;
    is($r->{status}, $status, "$name: status");
    like($r->json->{error}{message}, $message, "$name: message");
    is($r->json->{error}{type}, 'invalid_request_error', "$name: type");
}

is(request('depth', '[' x 19 . ']' x 19)->{status}, 200, 'request, depth 20');
limited('request, depth 21', request('depth', '[' x 20 . ']' x 20), 400,
        qr/nesting is too deep at byte \d+ \(ai_max_depth/);
is(request('default', '[' x 127 . ']' x 127)->{status}, 200,
   'request, default depth 128');
limited('request, depth 129', request('default', '[' x 128 . ']' x 128), 400,
        qr/ai_max_depth/);

# ai_max_nodes: what is relayed is read at its top level only

is(request('nodes', '[' . join(',', (1) x 1000) . ']')->{status}, 200,
   'request, many values within one');
$r = $gw->client->post('/nodes-m/chat/completions', chat('claude', stop =>
                       [ map { "s$_" } 1 .. 200 ]));
limited('request that is translated', $r, 400, qr/ai_max_nodes/);
$r = $gw->client->post('/nodes-m/chat/completions', chat('claude'));
is($r->{status}, 200, '... a small one');
limited('many at the top level', request('nodes', '1' . join('', map {
        ",\"a$_\":1" } 1 .. 100)), 400, qr/ai_max_nodes/);
refused('answer with many values', 'nodes', 'nodes-200', qr/./);
$r = $gw->client->post('/nodes/messages', chat('nodes-200', max_tokens => 9));
is("$r->{status} " . ($r->json->{error}{type} // ''), '502 api_error',
   '... translated');
accepted('default: 100,000 values', 'default', 'nodes-100000');

# ai_max_body

my $pad = 2048 - length('{"model":"answer-500","messages":[{"role":"user",'
                        . '"content":"x"}],"x":""}');
is(request('body', '"' . 'x' x $pad . '"')->{status}, 200, 'body of 2k');
limited('body over 2k', request('body', '"' . 'x' x ($pad + 1) . '"'), 413,
        qr/larger than 2048 bytes \(ai_max_body\)/);
is(request('default', '"' . 'x' x 33_000_000 . '"')->{status}, 200,
   'default: 33,000,000 bytes');
limited('default: over 32m', request('default', '"' . 'x' x 33_554_432 . '"'),
        413, qr/larger than 33554432 bytes/);

# ai_max_header

for my $stream (0, 1) {
    accepted("header of 1k ($stream)", 'header', 'header-1000',
             stream => $stream);
    # what was read at once may be as large as the buffer
    refused("header of 40k ($stream)", 'header', 'header-40000',
            qr/HTTP header is too large \(ai_max_header\)/,
            stream => $stream);
    accepted("default: header of 10k ($stream)", 'default', 'header-10000',
             stream => $stream);
    refused("default: header of 60k ($stream)", 'default', 'header-60000',
            qr/ai_max_header/, stream => $stream);
}

# memory goes back: a large body each time, the worker stays as it is

SKIP: {
    skip 'a checker of memory', 1 if checked();

    my ($worker) = $gw->workers;
    request('default', '"' . 'x' x 8_000_000 . '"') for 1 .. 3;
    my $before = rss($worker);
    request('default', '"' . 'x' x 8_000_000 . '"') for 1 .. 20;
    cmp_ok(rss($worker) - $before, '<', 8192, 'memory does not grow');
}

ok(idle_again($gw), 'nothing is left');

# errors of the directives

my $t = AI::Gateway->new;
my @one = ('ai_provider p { dialect openai; endpoint http://127.0.0.1:1; '
           . 'key none; }');

sub bad {
    my ($line, $message) = @_;
    $t->write_conf("events {}\nhttp {\n$one[0]\n$line\n}\n");
    unlink $t->dir . '/conf_test.out';
    my ($rc, $out) = $t->conf_test;
    ok($rc != 0 && $out =~ $message && $out =~ m{nginx\.conf:4\b},
       "error: $line") or diag($out);
}

sub good {
    my ($line, $warning) = @_;
    $t->write_conf("events {}\nhttp {\n$one[0]\n$line\n}\n");
    unlink $t->dir . '/conf_test.out';
    my ($rc, $out) = $t->conf_test;
    my $found = defined $warning && $out =~ s/^.*$warning.*\n//m;
    ok($rc == 0 && $out !~ /emerg|warn/, "good: $line") or diag($out);
    return $found;
}

for my $name (qw(body answer event header)) {
    bad("ai_max_$name 1023;", qr/must be at least 1k/);
    bad("ai_max_$name 1025m;", qr/must be at most 1024m/);
    bad("ai_max_$name x;", qr/invalid value/);
    bad("ai_max_$name 2k; ai_max_$name 2k;", qr/is duplicate/);
    bad("ai_max_$name;", qr/invalid number of arguments/);
    good("ai_max_$name 1k; server { ai_max_$name 1024m; "
         . "location / { ai_max_$name 7k; } }");
}

bad('ai_max_depth 0;', qr/must be.*1/);
bad('ai_max_depth 1025;', qr/must be.*1024/);
bad('ai_max_nodes 15;', qr/must be.*16/);
bad('ai_max_nodes 100000001;', qr/must be.*100000000/);
good('ai_max_depth 1; ai_max_nodes 16;');

bad('ai_zone gw 31k;', qr/"gw" is too small, it needs at least 32k/);
bad('ai_zone gw x;', qr/invalid size "x" of ai_zone "gw"/);
bad('ai_zone gw;', qr/invalid number of arguments/);
bad('ai_zone gw 1m; ai_zone other 1m;', qr/is duplicate/);
bad('server { ai_zone gw 1m; }', qr/not allowed here/);
good('ai_zone gw 32k;');
good('ai_zone gw 8m;');

bad('ai_memory_retain x;', qr/expects a size or "off"/);
bad('ai_memory_retain 0;', qr/expects a size or "off"/);
bad('ai_memory_retain 1m; ai_memory_retain 1m;', qr/is duplicate/);
bad('server { ai_memory_retain 1m; }', qr/not allowed here/);
good('ai_memory_retain off;');
my $other_libc = good('ai_memory_retain 2048m;',
                      qr/"ai_memory_retain" has no effect with this C libr/);

# the effect of ai_memory_retain: memory of a large body is kept, or not

SKIP: {
    skip 'a checker of memory', 4 if checked();
    skip 'not glibc', 4 if $other_libc;

    my %kept;

    for my $value ('off', '64m') {
        my $g = gateway("ai_memory_retain $value; $http", server =>
                        'location / { ai_pass p; }');
        my ($worker) = $g->workers;
        my $before = rss($worker);
        my $r = $g->client->post('/chat/completions',
            '{"model":"answer-500","messages":[],"x":"' . 'x' x 8_000_000
            . '"}');
        is($r->{status}, 200, "ai_memory_retain $value: answered");
        $g->wait_for(sub { rss($worker) - $before < 4000 }, 1)
            if $value eq 'off';
        $kept{$value} = rss($worker) - $before;
        $g->finish;
    }

    cmp_ok($kept{off}, '<', 4000, "off: $kept{off} KB are kept");
    cmp_ok($kept{'64m'}, '>', 6000, "64m: $kept{'64m'} KB are kept");
}

$gw->finish;

done_testing();
