#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# TLS to providers: whose certificate is accepted, under which name, and what
# of an ai_provider the other side sees.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use AI::Cert;
use AI::Gateway;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'no openssl' if !`openssl version 2>/dev/null`;

my $gw = AI::Gateway->new(files => { key => " sk-file\$x \n" },
                          env => { TEST_AI_KEY => 'sk-env' });
my $dir = $gw->dir;
my $cert = AI::Cert->new(dir => $dir);

my %leaf = (name    => [ $cert->leaf([ 'localhost', 'a.example' ]) ],
            address => [ $cert->leaf([ '127.0.0.1' ]) ],
            other   => [ $cert->leaf([ '127.0.0.9', 'b.example' ]) ],
            expired => [ $cert->leaf([ 'localhost' ], expired => 1) ]);

# the other side says what it saw

my $answer = '{"id":"x","object":"chat.completion","created":1,"model":"m",'
    . '"choices":[{"index":0,"finish_reason":"stop","message":{"role":'
    . '"assistant","content":"sni=$ssl_server_name host=$http_host uri=$uri '
    . 'auth=$http_authorization key=$http_api_key$http_x_api_key '
    . 'a=$http_x_a reused=$ssl_session_reused tls=$ssl_protocol"}}],'
    . '"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}';

my $servers = '';

for my $name (sort keys %leaf) {
    my ($crt, $key) = @{ $leaf{$name} };

    $servers .= "server { listen 127.0.0.1:%%PORT_$name%% ssl; "
                . "ssl_certificate $crt; ssl_certificate_key $key; "
                . "ssl_session_cache shared:$name:1m; "
                . ($name eq 'name' ? 'keepalive_timeout 0; ' : '')
                . "default_type application/json; return 200 '$answer'; }\n";
}

my %provider = (
    name      => 'endpoint https://localhost:%%PORT_name%%; tls_ca ca.crt;',
    tls_name  => 'endpoint https://127.0.0.1:%%PORT_name%%; tls_ca ca.crt; '
                 . 'tls_name a.example;',
    address   => 'endpoint https://127.0.0.1:%%PORT_address%%; '
                 . 'tls_ca ca.crt;',
    no_check  => 'endpoint https://127.0.0.1:%%PORT_other%%; tls_verify off;',
    pool      => 'endpoint https://pool/p; tls_ca ca.crt; '
                 . 'tls_name a.example;',
    system    => 'endpoint https://localhost:%%PORT_name%%;',
    other     => 'endpoint https://localhost:%%PORT_other%%; tls_ca ca.crt;',
    other_ip  => 'endpoint https://127.0.0.1:%%PORT_other%%; '
                 . 'tls_ca ca.crt;',
    no_ip     => 'endpoint https://127.0.0.1:%%PORT_name%%; tls_ca ca.crt;',
    misnamed  => 'endpoint https://localhost:%%PORT_name%%; tls_ca ca.crt; '
                 . 'tls_name b.example;',
    expired   => 'endpoint https://localhost:%%PORT_expired%%; '
                 . 'tls_ca ca.crt;',
    plain     => 'endpoint https://localhost:%%PORT_0%%; tls_verify off;',
);

my $providers = join "\n", map { "ai_provider $_ { dialect openai; key none; "
                                 . "$provider{$_} }" } sort keys %provider;
my $locations = join "\n", map { "location /$_/ { ai_pass $_; }" }
                           sort keys %provider;

$gw->write_conf(<<"END");
events {
}

http {
    upstream pool { server 127.0.0.1:%%PORT_name%%; }

    $providers

    ai_provider env   { dialect azure; key env:TEST_AI_KEY;
                        endpoint https://127.0.0.1:%%PORT_address%%/x/;
                        tls_ca ca.crt; header X-A "a \$request_method"; }
    ai_provider file  { dialect openai; key file:key; tls_verify off;
                        endpoint https://127.0.0.1:%%PORT_address%%; }
    ai_provider two   { dialect openai; key sk-1 sk-2; tls_verify off;
                        endpoint https://127.0.0.1:%%PORT_address%%; }
    ai_provider pass  { dialect azure; client_key pass; tls_verify off;
                        endpoint https://127.0.0.1:%%PORT_address%%; }
    ai_provider value { dialect openai; key \$http_x_key; tls_verify off;
                        endpoint https://127.0.0.1:%%PORT_address%%; }

    $servers

    server {
        listen 127.0.0.1:%%PORT_0%%;

        $locations

        location /env/   { ai_pass env; }
        location /file/  { ai_pass file; }
        location /two/   { ai_pass two; }
        location /pass/  { ai_pass pass; }
        location /value/ { ai_pass value; }
    }
}
END

$gw->start;

sub ask {
    my ($name, @headers) = @_;

    my $r = $gw->client->post("/$name/chat/completions",
                              { model => 'm', messages =>
                                [ { role => 'user', content => 'Hi' } ] },
                              headers => \@headers);

    return ($r->{status}, $r->{body} // '');
}

sub sees {
    my ($name, $re, @headers) = @_;
    my ($status, $body) = ask($name, @headers);

    ok($status == 200 && $body =~ $re, "$name: answered")
        or diag("$status $body");
}

my $port = $gw->port('name');

sees('name', qr/sni=localhost host=localhost:$port uri=\/v1\/chat\/compl/);
sees('name', qr/reused=r tls=TLSv1\.[23]/);
sees('tls_name', qr/sni=a\.example host=127\.0\.0\.1:$port/);
sees('address', qr/sni= host=127\.0\.0\.1:/);
sees('no_check', qr/host=127\.0\.0\.1:/);

# nginx's own balancer keeps a TLS session that it never frees

SKIP: {
    skip 'valgrind', 1 if $ENV{TEST_AI_VALGRIND};

    sees('pool', qr{sni=a\.example host=a\.example uri=/p/chat/compl});
}

for my $name (qw(system other other_ip no_ip misnamed expired plain)) {
    my ($status, $body) = ask($name);

    ok($status >= 500 && $body !~ /sni=/, "$name: refused")
        or diag("$status $body");
}

my $log = $gw->error_log;

like($log, $_, 'reason in the log')
    for qr/certificate verify error: \((?:20|21):.*"POST \/system\//,
        qr/does not match "localhost".*"POST \/other\//,
        qr/certificate verify failed.*"POST \/other_ip\//,
        qr/certificate verify failed.*"POST \/no_ip\//,
        qr/does not match "b\.example".*"POST \/misnamed\//,
        qr/certificate has expired.*"POST \/expired\//;

# what goes into the request

sees('env', qr{uri=/x/chat/completions auth= key=sk-env a=a POST });
sees('file', qr/auth=Bearer sk-file\$x key= /);

my %keys = map { my (undef, $body) = ask('two');
                 ($body =~ /auth=(Bearer sk-\d)/ ? $1 : $body) => 1 } 1 .. 4;
is(join(',', sort keys %keys), 'Bearer sk-1,Bearer sk-2', 'keys in turn');

sees('pass', qr/auth= key=sk-mine /, Authorization => 'Bearer sk-mine');
sees('pass', qr/auth= key=sk-mine /, 'x-api-key' => 'sk-mine');
sees('value', qr/auth=Bearer sk-v key= /, 'X-Key' => 'sk-v');

$gw->finish;

done_testing();
