#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# How spans are posted: over one connection as long as the collector keeps it,
# over another one when it does not, with nothing lost and nothing held up.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Time::HiRes qw(time);

use AI::Cert;
use AI::Gateway;
use AI::Kit qw(chat);
use AI::Otlp;
use AI::Provider qw(json_script);

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'no module of metrics'
    if AI::Gateway::modules() && !grep { /metrics/ } AI::Gateway::modules();

# what the collector does is told by the path

my @whole = ([ 'head', 200, { 'Content-Length' => 2 } ], [ 'chunk', '{}' ]);
my %count;

sub collect {
    my ($req) = @_;
    my $path = $req->{path};
    my $n = ++$count{$path};
    my $nth = $req->{nth};

    return [ @whole ] if $path =~ /length/;
    return [ @whole, [ 'close' ] ] if $path =~ /silent/;
    return [ [ 'head', 200, { 'Content-Length' => 2,
                              'Connection' => 'close' } ],
             [ 'chunk', '{}' ], [ 'close' ] ] if $path =~ /told/;
    return [ [ 'raw', "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}" ],
             [ 'end' ] ] if $path =~ /old/;
    return [ [ 'raw', "HTTP/1.1 200 OK\r\n\r\n{}" ], [ 'close' ] ]
        if $path =~ /eof/;
    return [ @whole, [ 'raw', 'junk' ], [ 'end' ] ] if $path =~ /junk/;
    return [ @whole, [ 'sleep', 30 ], [ 'raw', 'junk' ], [ 'end' ] ]
        if $path =~ /later/;
    return $nth == 2 ? [ [ 'close' ] ] : [ @whole ] if $path =~ /dies/;
    return $nth == 2 ? [ [ 'reset' ] ] : [ @whole ] if $path =~ /resets/;
    return $n == 2 || $n == 3 ? [ [ 'close' ] ] : [ @whole ]
        if $path =~ /twice/;
    return $n == 2 ? [ [ 'raw', "HTTP/1.1 200 OK\r\nContent-Le" ],
                       [ 'close' ] ] : [ @whole ] if $path =~ /middle/;
    return $n == 2 ? json_script(400, {}) : [ @whole ] if $path =~ /refused/;

    if ($path =~ /slow/) {
        return [ [ 'sleep', 700 ], @whole ];
    }

    return json_script(200, {});
}

my $p = AI::Provider->start(handler => \&collect,
                            on_reset => sub { %count = () });

sub gateway {
    my ($trace) = @_;

    my $gw = AI::Gateway->new(conf => <<"END");
events {}
http {
    ai_provider canned { dialect static; text "hello"; }
    ai_model c { target canned/any; }

    server {
        listen 127.0.0.1:%%PORT_0%%;
        $trace
        location /v1/ { ai_pass model; }
        location = /metrics { ai_metrics; }
    }
}
END
    return $gw->start;
}

sub ask {
    my ($gw) = @_;
    return $gw->client->post('/v1/chat/completions', chat('c'))->{status};
}

sub sent {
    my ($gw, $result) = @_;
    my $text = $gw->client->get('/metrics')->{body};

    return $text =~ /^nginx_ai_trace_spans_total\{result="$result"\} (\d+)/m
           ? $1 : -1;
}

# asks n times, each time when the spans before have been posted; returns the
# posts.  A request that is answered here has one span.

sub posted {
    my ($gw, $n, $from) = @_;
    my $done = 0;

    $from //= $p;
    $from->reset;

    for my $i (1 .. $n) {
        $done++ if ask($gw) == 200
                   && $gw->wait_for(sub { sent($gw, 'sent') == $i });
    }

    is($done, $n, 'all spans are posted');

    return $from->log;
}

sub connections {
    my %seen = map { $_->{conn} => 1 } @_;
    return scalar keys %seen;
}

sub ids {
    my %seen;
    $seen{$_->{spanId}}++ for map { AI::Otlp::spans($_->{body}) } @_;
    return \%seen;
}

# one connection for all

for my $case ('length', 'chunked') {
    my $gw = gateway("ai_trace @{[ $p->url ]}/$case flush=20ms;");
    my @posts = posted($gw, 5);

    is(scalar @posts, 5, "$case: five posts");
    is(connections(@posts), 1, '... one connection');
    ok(!grep({ exists $_->{headers}{connection} } @posts),
       '... which is to be kept');

    # nothing waits for its end

    my $start = time();
    ok($gw->reload, '... reload');
    is(ask($gw), 200, '... a new worker');
    ok($gw->wait_for(sub { $p->log == 6 }), '... which posts');
    is(connections($p->log), 2, '... over its own connection');
    is($p->connections->{open}, 1, '... the old one is closed');

    $gw->stop;
    cmp_ok(time() - $start, '<', 8, '... nor an end');
    ok($gw->wait_for(sub { $p->connections->{open} == 0 }),
       '... which closes it');
    $gw->finish;
}

# those that are not to be used again

for my $case ([ 'told', 'Connection: close' ],
              [ 'silent', 'closed without a word' ],
              [ 'old', 'HTTP/1.0' ],
              [ 'eof', 'up to the end of the connection' ],
              [ 'junk', 'more than the answer' ],
              [ 'later', 'bytes that nobody has asked for' ])
{
    my $gw = gateway("ai_trace @{[ $p->url ]}/$case->[0] flush=20ms;");
    my @posts;

    if ($case->[0] eq 'later') {
        # the junk comes before the next post
        $p->reset;

        for my $i (1 .. 4) {
            ask($gw);
            $gw->wait_for(sub { sent($gw, 'sent') == $i
                                && $p->connections->{open} == 0 });
        }

        @posts = $p->log;

    } else {
        @posts = posted($gw, 4);
    }

    is(connections(@posts), 4, "$case->[1]: four connections");
    is(scalar(grep { $_ != 1 } values %{ ids(@posts) }), 0,
       '... nothing is posted twice');
    $gw->finish;
}

# one that ends when it is used again

for my $case ([ 'dies', 'closed' ], [ 'resets', 'reset' ]) {
    my $gw = gateway("ai_trace @{[ $p->url ]}/$case->[0] flush=20ms;");
    my $start = time();
    my @posts = posted($gw, 4);

    is(scalar @posts, 7, "$case->[1] in place of an answer: posted again");
    is(connections(@posts), 4, '... over a fresh connection');
    is(scalar(keys %{ ids(@posts) }), 4, '... the same spans');
    is($posts[1]{body}, $posts[2]{body}, '... the same body');
    is(sent($gw, 'failed'), 0, '... none has failed');
    cmp_ok($posts[2]{time} - $posts[1]{time}, '<', 0.4, '... at once');
    $gw->finish;
}

# ... but once

for my $case ([ 'twice', 4 ], [ 'middle', 3 ]) {
    my $gw = gateway("ai_trace @{[ $p->url ]}/$case->[0] flush=20ms;");

    $gw->allow(qr/spans could not be posted/);

    my @posts = posted($gw, 2);

    is(scalar @posts, $case->[1], "$case->[0]: posted again");
    cmp_ok($posts[-1]{time} - $posts[-2]{time}, '>', 0.4, '... later');
    ok($gw->wait_log(qr/connection closed before the end of the answer/),
       '... it is said');
    is(sent($gw, 'failed'), 0, '... none is lost');
    $gw->finish;
}

# an error is an answer

{
    my $gw = gateway("ai_trace @{[ $p->url ]}/refused flush=20ms;");

    $gw->allow(qr/spans could not be posted/);
    $p->reset;

    ask($gw);
    $gw->wait_for(sub { sent($gw, 'sent') == 1 });
    ask($gw);
    ok($gw->wait_for(sub { sent($gw, 'failed') == 1 }), '400: spans are lost');
    ask($gw);
    ok($gw->wait_for(sub { sent($gw, 'sent') == 2 }), '... not the next ones');
    is(connections($p->log), 1, '... over one connection');
    $gw->finish;
}

# spans that are made while a post is under way go together

{
    my $gw = gateway("ai_trace @{[ $p->url ]}/slow flush=3s batch=2;");

    $p->reset;
    ask($gw) for 1 .. 10;

    ok($gw->wait_for(sub { sent($gw, 'sent') == 10 }), 'slow: all are posted');

    my @posts = $p->log;
    cmp_ok(scalar @posts, '<', 6, '... together');
    is(scalar(keys %{ ids(@posts) }), 10, '... each of them');
    is(scalar(grep { $_ != 1 } values %{ ids(@posts) }), 0, '... once');
    is(connections(@posts), 1, '... over one connection');
    $gw->finish;
}

# TLS

SKIP: {
    eval { require IO::Socket::SSL; 1 } or skip 'no IO::Socket::SSL', 9;

    my $gw;
    my $dir = File::Temp::tempdir(CLEANUP => 1);
    my $cert = AI::Cert->new(dir => $dir);
    my ($crt, $key) = $cert->leaf([ '127.0.0.1' ]);
    my $tls = AI::Provider->start(ssl => { cert => $crt, key => $key },
                                  handler => \&collect,
                                  on_reset => sub { %count = () });
    my $url = 'https://127.0.0.1:' . $tls->port;

    for my $case ([ 'length', 4, 1 ], [ 'silent', 4, 4 ], [ 'dies', 7, 4 ]) {
        $gw = gateway("ai_trace $url/$case->[0] flush=20ms "
                      . "tls_ca=$cert->{ca};");

        my @posts = posted($gw, 4, $tls);

        is(scalar @posts, $case->[1], "TLS, $case->[0]: posts");
        is(connections(@posts), $case->[2], '... connections');
        $gw->finish;
    }
}

done_testing();
