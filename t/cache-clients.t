#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Hits of the cache for clients of any version of HTTP, with TLS and without:
# each gets what was stored for any of them, whole, in its own mode.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use File::Temp ();
use Test::More;

use AI::Kit;
use AI::Cert;
use AI::Gateway;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'no module of the cache'
    if AI::Gateway::modules() && !grep { /cache/ } AI::Gateway::modules();
plan skip_all => 'this nginx has no TLS'
    if !AI::Gateway::has('http_ssl_module');
plan skip_all => 'no openssl' if !`openssl version 2>/dev/null`;
plan skip_all => 'no IO::Socket::SSL' if !eval { require IO::Socket::SSL };

my $curl = `curl -V 2>/dev/null`;
my $http2 = AI::Gateway::has('http_v2_module') && $curl =~ /\bHTTP2\b/;
my $http3 = AI::Gateway::has('http_v3_module') && $curl =~ /\bHTTP3\b/;

my $p = provider();
my $url = $p->url;

my $dir = File::Temp::tempdir(CLEANUP => 1);
my ($crt, $key) = AI::Cert->new(dir => $dir)->leaf([ '127.0.0.1' ]);

my @listen = ('listen 127.0.0.1:%%PORT_tls%% ssl;');

push @listen, 'listen 127.0.0.1:%%PORT_h2%% http2;',
              'listen 127.0.0.1:%%PORT_h2s%% ssl http2;' if $http2;
push @listen, 'listen 127.0.0.1:%%PORT_quic%% quic reuseport;' if $http3;

my $gw = gateway(<<"END", server => <<"SERVER");
    ai_cache_zone answers 16m max_size=4m;

    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_model short { target p/n:5; }
    ai_model large { target p/n:6000; }
END
        @listen
        ssl_certificate $crt;
        ssl_certificate_key $key;

        location /v1/ {
            ai_pass model;
            ai_cache answers ttl=1h scope=global;
            ai_cache_any on;
        }
SERVER

my $path = '/v1/chat/completions';

# how each of them posts

my %post = (
    'HTTP/1.1' => sub { $gw->client->post(@_) },
    'HTTP/1.1, TLS' => sub { $gw->client(n => 'tls', ssl => 1)->post(@_) },
);

if ($http2) {
    $post{'HTTP/2'} = sub { $gw->client(n => 'h2')->h2(@_) };
    $post{'HTTP/2, TLS'} = sub {
        $gw->client(n => 'h2s')->curl([ '--http2', '-k' ], 'https', @_)
    };
}

$post{'HTTP/3'} = sub { $gw->client(n => 'quic')->h3(@_) } if $http3;

my @names = sort keys %post;
my %words = (short => 5, large => 6000);

sub question {
    my ($model, $q, $stream) = @_;
    my $body = chat($model, stream => $stream);

    $body->{messages}[0]{content} = "question $q";

    return $body;
}

sub is_whole {
    my ($name, $r, $model, $stream, $state) = @_;
    my $text = $stream ? $r->text
                       : $r->json->{choices}[0]{message}{content};

    is("$r->{status} " . ($r->{headers}{'x-ai-cache'} // 'none'),
       "200 $state", "$name: $state") or diag($r->{error} // '');
    ok($text eq join(' ', map { "w$_" } 1 .. $words{$model}),
       "$name: whole");
    like($r->{body}, qr/data: \[DONE\]\n\n\z/, "$name: its end") if $stream;
}

# each has one of its own stored, and all others find it

for my $model ('short', 'large') {
    for my $first (@names) {
        my $stream = $first =~ /TLS/ ? 1 : 0;
        my %body;

        $p->reset;
        is_whole("$model, by $first",
                 $post{$first}->($path, question($model, $first, $stream)),
                 $model, $stream, 'MISS');

        for my $name (@names) {
            for my $s (0, 1) {
                my $r = $post{$name}->($path, question($model, $first, $s));

                is_whole("$model, stored by $first, for $name, stream $s", $r,
                         $model, $s, 'HIT');
                # an answer has an id and a time of its own
                my $body = $r->{body} =~ s/"(?:id|created)":[^,]+//gr;
                $body{$s}{$body}++;
            }
        }

        is(join(' ', map { scalar keys %{ $body{$_} } } 0, 1), '1 1',
           "$model, stored by $first: the same for all");
        is(scalar($p->log), 1, "$model, stored by $first: one request");
    }
}

ok(idle_again($gw), 'no connection is left');
ok($gw->finish, 'clean');

done_testing();
