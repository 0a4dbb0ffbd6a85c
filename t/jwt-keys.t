#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Key sets that are fetched: at the start, when they are old, for an unknown
# kid; by one worker for all; kept when the issuer fails; by discovery and TLS.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP;
use Test::More;
use Time::HiRes qw(time sleep);

use AI::Cert;
use AI::Gateway;
use AI::H2;
use AI::Jwt;
use AI::Port;
use AI::Provider;

my $missing = AI::Gateway::missing() // AI::Jwt::missing();
plan skip_all => $missing if $missing;

my $slow = $ENV{TEST_AI_VALGRIND} ? 5 : 1;
my $gw = AI::Gateway->new(workers => 4, files => { ok => "ok\n",
                                              secret => 's' x 32 });
my $dir = $gw->dir;
my $jwt = AI::Jwt->new(dir => $dir);
my $cert = AI::Cert->new(dir => $dir);

my $one = $jwt->key('ES256', kid => 'one');
my $two = $jwt->key('EdDSA', kid => 'two');
my $bare = $jwt->key('ES256');
my $bare2 = $jwt->key('ES256');

# the issuer: for each path what the test has set, as [ status, body, headers,
# delay, framing ]

sub serve {
    my ($req) = @_;
    my $answer = $req->{vars}{$req->{path}} // [ 404, '' ];
    my ($status, $body, $headers, $delay, $how) = @$answer;
    my @script = $delay ? [ 'sleep', $delay ] : ();

    $how //= 'length';
    $headers //= {};

    if ($how eq 'close') {
        push @script, [ 'close' ];

    } elsif ($how eq 'stall') {
        push @script, [ 'stall' ];

    } elsif ($how eq 'raw') {
        push @script, [ 'raw', $body ], [ 'close' ];

    } elsif ($how eq 'eof') {
        push @script, [ 'raw', "HTTP/1.1 $status X\r\n\r\n$body" ],
             [ 'close' ];

    } elsif ($how eq 'chunked') {
        push @script, [ 'head', $status, $headers ],
             (map { [ 'chunk', $_ ] } $body =~ /(.{1,7})/gs), [ 'end' ];

    } else {
        push @script, [ 'head', $status, { %$headers, 'Content-Length' =>
                                           length $body } ],
             (length $body ? [ 'chunk', $body ] : ()), [ 'end' ];
    }

    return \@script;
}

my $p = AI::Provider->start(handler => \&serve);
my $url = $p->url;
my @leaf = $cert->leaf([ 'localhost' ]);
my $tls = AI::Provider->start(handler => \&serve,
                              ssl => { cert => $leaf[0], key => $leaf[1] });
my $tls_port = $tls->port;
my @address = $cert->leaf([ '127.0.0.1' ]);
my $tls_ip = AI::Provider->start(handler => \&serve,
                                 ssl => { cert => $address[0],
                                          key => $address[1] });
my $closed = AI::Port::free_port();

# what is fetched is no secret, also beside one

my $public = $jwt->secret('HS256', 'p' x 32, kid => 'public');
my $private = $jwt->secret('HS256', 's' x 32);

my $set = AI::Jwt::jwks($one);
my $ok = [ 200, $set ];

sub document {
    my ($iss, $uri) = @_;
    return [ 200, encode_json({ issuer => $iss, jwks_uri => $uri }) ];
}

my $base = "http://127.0.0.1:" . $p->port;

$p->set('/keys' => $ok, '/slow' => [ 200, $set, {}, 1500 ],
        '/cold' => [ 503, 'x' ],
        '/stall' => [ 200, '', {}, 0, 'stall' ],
        '/chunked' => [ 200, $set, {}, 0, 'chunked' ],
        '/eof' => [ 200, $set, {}, 0, 'eof' ],
        '/early' => [ 200, "HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 "
                           . "OK\r\nContent-Length: " . length($set)
                           . "\r\n\r\n$set", {}, 0, 'raw' ],
        '/query?a=b' => $ok, '/query' => $ok,
        '/bare' => [ 200, AI::Jwt::jwks($bare) ],
        '/ttl' => $ok, '/age' => [ 200, $set, { 'Cache-Control' =>
                                          'public, max-age=1, x' } ],
        '/storm' => [ 200, $set, {}, 300 ],
        '/moved' => [ 301, '', { Location => "$base/keys" } ],
        '/short' => [ 200, "HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"
                           . $set, {}, 0, 'raw' ],
        '/large' => [ 200, $set . ' ' x (256 * 1024) ],
        '/large2' => [ 200, $set . ' ' x (256 * 1024), {}, 0, 'eof' ],
        '/junk' => [ 200, 'no json' ], '/empty' => [ 200, '{"keys":[]}' ],
        '/hmac' => [ 200, AI::Jwt::jwks($jwt->secret('HS256', 'x' x 32)) ],
        '/oct' => [ 200, AI::Jwt::jwks($one, $public) ],
        '/noise' => [ 200, "\1\2\3 what\r\n\r\n", {}, 0, 'raw' ],
        '/gzip' => [ 200, $set, { 'Content-Encoding' => 'gzip' } ],
        '/chunk' => [ 200, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
                           . "\r\nzz\r\n", {}, 0, 'raw' ],
        '/header' => [ 200, "HTTP/1.1 200 OK\r\n" . "X: y\r\n" x 5000, {}, 0,
                       'raw' ],
        '/close' => [ 200, '', {}, 0, 'close' ],
        '/d1/.well-known/openid-configuration' =>
            document("$base/d1", "$base/keys"),
        '/d2/.well-known/openid-configuration' =>
            document("$base/other", "$base/keys"),
        '/d3/.well-known/openid-configuration' =>
            document("$base/d3", 'http://keys.example/'),
        '/d4/.well-known/openid-configuration' => [ 200, '[]' ],
        '/d5/.well-known/openid-configuration' =>
            [ 200, encode_json({ issuer => "$base/d5" }) ],
        '/d6/.well-known/openid-configuration' =>
            document("$base/d6/", "$base/keys"),
        '/d7/.well-known/openid-configuration' =>
            document("$base/d7", "$base/nothing"),
        '/d8/.well-known/openid-configuration' =>
            document("$base/d8", "/keys"));

$_->set('/keys' => $ok, '/plain' => [ 200, $set ],
        '/d/.well-known/openid-configuration' =>
            document("https://localhost:$tls_port/d",
                     "https://localhost:$tls_port/keys"),
        '/d2/.well-known/openid-configuration' =>
            document("https://localhost:$tls_port/d2", "$base/keys"))
    for $tls, $tls_ip;

my %issuer = (
    keys    => "jwks $url/keys;",
    slow    => "jwks $url/slow;",
    cold    => "jwks $url/cold; timeout 1s;",
    stall   => "jwks $url/stall; timeout 500ms;",
    chunked => "jwks $url/chunked;",
    eof     => "jwks $url/eof;",
    early   => "jwks $url/early;",
    query   => "jwks $url/query?a=b;",
    name    => "jwks http://localhost:" . $p->port . '/keys;',
    bare    => "jwks $url/bare; cooldown 1s; timeout 5s;",
    ttl     => "jwks $url/ttl cache=1s;",
    age     => "jwks $url/age cache=1s;",
    unknown => "jwks $url/unknown; cooldown 4s;",
    storm   => "jwks $url/storm; cooldown 1h;",
    https   => "jwks https://localhost:$tls_port/keys; tls_ca ca.crt;",
    ip      => 'jwks ' . $tls_ip->url . '/keys; tls_ca ca.crt;',
    nocheck => "jwks https://127.0.0.1:$tls_port/keys; tls_verify off;",
    oct     => "jwks $url/oct; secret file:secret; alg ES256 HS256;",
    d1      => 'jwks discovery;',
    d6      => 'jwks discovery;',
    dtls    => 'jwks discovery; tls_ca ca.crt;',
);

my %iss = (d1 => "$base/d1", d6 => "$base/d6/",
           dtls => "https://localhost:$tls_port/d");

# of these none has keys, for a reason in the log

my %broken = (
    down    => [ "jwks http://127.0.0.1:$closed/;",
                 qr/could not connect to 127\.0\.0\.1:$closed \(\d+: / ],
    moved   => [ "jwks $url/moved;", qr/status 301/ ],
    gone    => [ "jwks $url/gone;", qr/status 404/ ],
    short   => [ "jwks $url/short;", qr/closed before the end/ ],
    large   => [ "jwks $url/large;", qr/too large answer/ ],
    large2  => [ "jwks $url/large2;", qr/too large answer/ ],
    junk    => [ "jwks $url/junk;", qr/fetched: \S/ ],
    empty   => [ "jwks $url/empty;", qr/has no key/ ],
    hmac    => [ "jwks $url/hmac;", qr/fetched: \S/ ],
    noise   => [ "jwks $url/noise;", qr/no HTTP\/1\.1 answer/ ],
    gzip    => [ "jwks $url/gzip;", qr/is compressed/ ],
    chunk   => [ "jwks $url/chunk;", qr/invalid chunked answer/ ],
    header  => [ "jwks $url/header;", qr/too large header/ ],
    close   => [ "jwks $url/close;", qr/closed before the end/ ],
    noname  => [ 'jwks https://keys.invalid/;',
                 qr/could not be resolved|timed out|no resolver/ ],
    plain   => [ "jwks https://localhost:" . $p->port . '/keys;',
                 qr/TLS handshake with .* failed|while handshaking/ ],
    system  => [ "jwks https://localhost:$tls_port/keys;",
                 qr/certificate of "localhost" is not trusted \(\d+: / ],
    other   => [ "jwks https://127.0.0.1:$tls_port/keys; tls_ca ca.crt;",
                 qr/certificate of "127\.0\.0\.1" is not trusted \(\d+: / ],
    misname => [ 'jwks https://localhost:' . $tls_ip->port . '/keys; '
                 . 'tls_ca ca.crt;', qr/certificate is not one of "localhost"/
               ],
    d2      => [ 'jwks discovery;', qr/of another "issuer"/ ],
    d3      => [ 'jwks discovery;', qr/"jwks_uri" .* is not https/ ],
    d4      => [ 'jwks discovery;', qr/no JSON object/ ],
    d5      => [ 'jwks discovery;', qr/has no "jwks_uri"/ ],
    d7      => [ 'jwks discovery;', qr/status 404/ ],
    d8      => [ 'jwks discovery;', qr/invalid "jwks_uri"/ ],
    dplain  => [ 'jwks discovery; tls_ca ca.crt;',
                 qr/"jwks_uri" .* is not https/ ],
);

$iss{$_} = "$base/$_" for qw(d2 d3 d4 d5 d7 d8);
$iss{dplain} = "https://localhost:$tls_port/d2";

# but for those, no fetch is over for want of time on a slow machine

$issuer{$_} = $broken{$_}[0]
              . (/^(?:plain|noname)$/ ? ' timeout 1s;' : '') for keys %broken;
$issuer{$_} =~ s/^(?!.*\btimeout)/timeout 20s; / for keys %issuer;

my ($issuers, $locations) = ('', '');

for my $name (sort keys %issuer) {
    $iss{$name} //= "https://$name.example";
    $issuers .= "ai_jwt_issuer $name { issuer $iss{$name}; audience ai; "
                . "$issuer{$name} }\n";
    $locations .= "location /$name/ { alias $dir/; ai_auth jwt=$name; }\n";
}

$gw->write_conf(<<"END");
events {
}

http {
    ai_auth_log rate=10000r/s;
    resolver 127.0.0.1:$closed ipv6=off;
    resolver_timeout 1s;

    $issuers

    ai_provider static { text "hello"; }

    server {
        listen 127.0.0.1:%%PORT_0%%;

        $locations

        location /ai/ { ai_pass static; ai_auth jwt=cold; }
    }

    server {
        listen 127.0.0.1:%%PORT_h2%% http2;

        location / { ai_pass static; ai_auth jwt=bare; }
    }
}
END

# configuration needs nobody

$p->set('/unknown' => $ok);
$p->reset;

my ($rc, $out) = $gw->conf_test;
is($rc, 0, 'nginx -t') or diag($out);
is(scalar(() = $p->log), 0, 'fetches nothing');

$gw->start;

my ($n, $start) = (0, 0);

sub token {
    my ($name, $key, %header) = @_;

    return $jwt->token($key // $one,
                       { iss => $iss{$name}, aud => 'ai', sub => 'u' . ++$n,
                         exp => int(time()) + 600 }, %header);
}

sub send_token {
    my ($name, $token) = @_;
    return $gw->client->open("/$name/ok", undef, method => 'GET',
                             headers => [ Authorization => "Bearer $token" ]);
}

sub ask {
    my ($name, $token) = @_;
    my $s = send_token($name, $token // token($name));

    $s->finish;
    return $s;
}

sub status { return ask(@_)->{status} }

sub fetches {
    my ($path, $from) = @_;
    return scalar grep { $_->{path} eq $path } ($from // $p)->log;
}

# a cold start ends by itself

my $cold = $gw->client->post('/ai/v1/chat/completions',
                             { model => 'x', messages => [] },
                             headers => [ 'x-api-key' => token('cold') ]);
is($cold->{status}, 503, 'before the start of the issuer');
ok($cold->{headers}{'retry-after'}, 'Retry-After');
is(ref eval { $cold->json->{error} }, 'HASH', 'in the dialect');

$p->set('/cold' => $ok);
ok($gw->wait_for(sub { status('cold') == 200 }, 35), 'after its start');
like($gw->error_log, qr/issuer "cold": key set was fetched after \d+ fail/,
     'logged');
is(() = $gw->error_log =~ /issuer "cold": .* could not be fetched/g, 1,
   'failure was logged once');

# requests that come before the keys wait

$start = time();
my @early = map { send_token('slow', token('slow')) } 1 .. 20;
$_->finish for @early;
my $took = time() - $start;

is(scalar(grep { $_->{status} == 200 } @early), 20, 'requests wait for keys');
ok($took < 3 * $slow, 'as long as it takes') or diag($took);
is(fetches('/slow'), 1, 'one fetch for all workers');

for my $name (qw(keys chunked eof early query name https ip nocheck d1 d6
                 dtls))
{
    is(status($name), 200, $name);
}

is(status('oct'), 200, 'public key beside a secret');
is(status('oct', token('oct', $private)), 200, 'secret');
is(status('oct', token('oct', $public)), 401, 'secret of the fetched set');

is((grep { $_->{path} eq '/query' } $p->log)[0]{query}, 'a=b', 'query');

my ($seen) = grep { $_->{path} eq '/chunked' } $p->log;
my %h = map { lc($_) => $seen->{headers}{$_} } keys %{ $seen->{headers} };
is($h{host}, '127.0.0.1:' . $p->port, 'Host');
like($h{'user-agent'}, qr{^nginx-ai-gateway/\d}, 'User-Agent');
is($h{connection}, 'close', 'Connection');

# no keys

for my $name (sort keys %broken) {
    my $r = ask($name);

    is($r->{status}, 503, "$name: no keys, 503");
    ok($gw->wait_log(qr/issuer "$name": key set .* answered with 503/, undef,
                     10), "$name: logged")
        or next;
    like($gw->error_log, qr/issuer "$name": .*$broken{$name}[1]/,
         "$name: reason");
}

is(fetches('/gone') <= 8, 1, 'asked again with pauses');
is(fetches('/moved', $p) >= 1, 1, 'no redirect is followed');

$start = time();
is(status('stall'), 503, 'an issuer that does not answer');
$took = time() - $start;
ok($took < 4 * $slow, 'waits no longer than the timeout') or diag($took);
ok($gw->wait_log(qr/issuer "stall": .*timed out while reading an answer/),
   'reason');

# too old: asked again; a failure keeps the keys

ok($gw->wait_for(sub { fetches('/ttl') >= 3 }, 10), 'asked again after cache=');
ok(fetches('/age') >= 2, 'max-age is not less than cache=');
is(fetches('/keys') >= 3, 1, 'others are not');
my $before = fetches('/keys');

$p->set('/ttl' => [ 200, AI::Jwt::jwks($two) ]);
ok($gw->wait_for(sub { status('ttl', token('ttl', $two)) == 200 }, 10),
   'rotated');
ok($gw->wait_for(sub { status('ttl') == 401 }, 10), 'the old key has ended');

$p->set('/ttl' => [ 500, 'oops' ]);
ok($gw->wait_log(qr/issuer "ttl": .* status 500; the keys of before stay/),
   'a failure');
is(status('ttl', token('ttl', $two)), 200, 'the keys stay') for 1 .. 8;
$p->set('/ttl' => [ 200, '{"keys":"?"}' ]);
sleep 1.5;
is(status('ttl', token('ttl', $two)), 200, 'with a broken set as well');
is(() = $gw->error_log =~ /issuer "ttl": .* could not be fetched/g, 1,
   'logged once');
$p->set('/ttl' => [ 200, AI::Jwt::jwks($one, $two) ]);
ok($gw->wait_for(sub { status('ttl') == 200 }, 35), 'and is over');

# an unknown kid

is(status('unknown'), 200, 'known kid');
is(fetches('/unknown'), 1, 'one fetch');

$p->set('/unknown' => [ 200, AI::Jwt::jwks($one, $two), {}, 200 ]);

my @tokens = map { token('unknown', $two) } 1 .. 40;
my @nobody = map { token('unknown', $one, kid => "no$_") } 1 .. 21;
my $old = token('unknown');

$start = time();

my @new = map { send_token('unknown', $_) } @tokens;
$_->finish for @new;
is(scalar(grep { $_->{status} == 200 } @new), 40, 'a new kid is waited for');
is(fetches('/unknown'), 2, 'one more fetch, of all workers');
is(status('unknown', $old), 200, 'the old kid is there');
is(status('unknown', $nobody[$_]), 401, 'a kid of nobody') for 0 .. 19;

SKIP: {
    skip 'slow machine', 1 if time() - $start > 3.5;

    is(fetches('/unknown'), 2, 'no fetch within the cooldown');
}

sleep 4.2;
$before = fetches('/unknown');
is(status('unknown', $nobody[20]), 401, 'after the cooldown');
is(fetches('/unknown'), $before + 1, 'one fetch more');
is(status('unknown', token('unknown', $two,
                           alg => 'ES256', kid => 'two')), 401,
   'a kid with another alg');

# random kids do not multiply

is(status('storm'), 200, 'before the storm');

my @storm = map { send_token('storm', token('storm', $one, kid => "r$_")) }
            1 .. 200;
$_->finish for @storm;
is(scalar(grep { $_->{status} == 401 } @storm), 200, '200 random kids');
is(fetches('/storm'), 2, 'cost one fetch');

# keys without kid

is(status('bare', token('bare', $bare)), 200, 'key without kid');
$p->set('/bare' => [ 200, AI::Jwt::jwks($bare2) ]);
is(status('bare', token('bare', $bare2)), 200, 'rotated without kid');
is(status('bare', token('bare', $bare)), 401, 'the old one has ended');

# clients that leave while they wait

sleep 1.2;
$p->set('/bare' => [ 200, AI::Jwt::jwks($bare), {}, 2000 ]);
my $fetched = fetches('/bare');
my @left = map { send_token('bare', token('bare', $bare)) } 1 .. 10;
$gw->wait_for(sub { fetches('/bare') > $fetched });
sleep 0.2;
$left[$_]->abort for 0 .. 4;
$left[$_]->finish for 5 .. 9;
is(scalar(grep { $left[$_]{status} == 200 } 5 .. 9), 5,
   'others wait on when clients leave');

# streams of one connection wait, and leave, each on its own

sleep 1.2;
$p->set('/bare' => [ 200, AI::Jwt::jwks($bare2), {}, 2000 ]);

my $h2 = AI::H2->new(port => $gw->port('h2'));
my @s = map { $h2->request('/v1/chat/completions',
                           { model => 'm', messages =>
                             [ { role => 'user', content => 'Hi' } ] },
                           'x-api-key' => token('bare', $_ == 5 ? $bare
                                                                : $bare2)) }
        1 .. 5;

$h2->wait(sub { 0 }, 0.7);
$h2->rst($s[1]);
ok($h2->wait(sub { !grep { !$_->{ended} } @s[0, 2, 3, 4] }), 'HTTP/2: ended');
is(scalar(grep { ($_->{status} // 0) == 200 } @s[0, 2, 3]), 3,
   'HTTP/2: streams wait for keys');
is($s[4]{status} // 0, 200, 'HTTP/2: one with a known key does not');
$h2->close;

sleep 1.2;
$p->set('/bare' => [ 200, AI::Jwt::jwks($bare), {}, 2000 ]);
$h2 = AI::H2->new(port => $gw->port('h2'));
@s = map { $h2->request('/v1/chat/completions', {},
                        'x-api-key' => token('bare', $bare)) } 1 .. 5;
$h2->wait(sub { 0 }, 0.7);
$h2->close;
is(status('bare', token('bare', $bare)), 200,
   'HTTP/2: a connection is closed while its streams wait');

# a reload asks nobody, and new workers have the keys

$before = fetches('/keys');
$gw->reload;
is(status('keys'), 200, 'after a reload') for 1 .. 8;
is(fetches('/keys'), $before, 'without a fetch');

# requests that wait are served by a worker that ends

sleep 1.2;
$p->set('/bare' => [ 200, AI::Jwt::jwks($bare2), {}, 3000 ]);
$p->reset;
my $waiting = send_token('bare', token('bare', $bare2));
$gw->wait_for(sub { fetches('/bare') > 0 });
kill 'HUP', $gw->master;
$waiting->finish;
is($waiting->{status}, 200, 'a reload while requests wait');

# the worker that fetches is killed: another one does it

$gw->wait_for(sub { $gw->workers == 4 });
sleep 1.2;
$p->set('/bare' => [ 200, AI::Jwt::jwks($bare), {}, 4000 ]);
my @before = $gw->workers;
$p->reset;
$waiting = send_token('bare', token('bare', $bare));
$gw->wait_for(sub { fetches('/bare') > 0 });
$gw->allow(qr/worker process \d+ exited on signal 9/,
           qr/exited on signal 9/);
kill 'KILL', @before;
$waiting->finish;
is($waiting->{status}, 0, 'all workers are killed');
$gw->wait_for(sub { my %b = map { $_ => 1 } @before;
                    return 4 == grep { !$b{$_} } $gw->workers });
is(status('keys'), 200, 'others have the keys');
ok($gw->wait_for(sub { status('bare', token('bare', $bare)) == 200 }, 40),
   'and go on where they were');

unlike($gw->error_log, qr/eyJ/, 'no token in the log');

$gw->finish;

done_testing();
