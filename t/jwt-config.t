#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# ai_jwt_issuer and ai_jwt_cache as nginx -t sees them.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP;
use Test::More;

use AI::Gateway;
use AI::Jwt;

my $missing = AI::Gateway::missing() // AI::Jwt::missing();
plan skip_all => $missing if $missing;

my $canary = 'canary-0123456789-0123456789-0123456789';
my $gw = AI::Gateway->new(
    env => { TEST_AI_SECRET => $canary, TEST_AI_SHORT => 'canary',
             TEST_AI_EMPTY => ' ', TEST_AI_64 => 'x' x 64 },
    files => { secret => "$canary\n", short => "canary\n", empty => '',
               junk => 'junk', none => '{"keys":[]}',
               large => ' ' x (256 * 1024 + 1), 'ca.bad' => "junk\n",
               'part.conf' => "audience ai;\n" });
my $dir = $gw->dir;
my $jwt = AI::Jwt->new(dir => $dir);
my $rs = $jwt->key('RS256', kid => 'a');
my $small = $jwt->key('RS256', kid => 'b', bits => 1024);
my $oct = $jwt->secret('HS256', 'x' x 32);

$gw->write_file('set.json', AI::Jwt::jwks($rs));
$gw->write_file('small.json', AI::Jwt::jwks($small));
$gw->write_file('oct.json', AI::Jwt::jwks($oct));

sub run {
    my ($http) = @_;

    $gw->write_conf("events {}\nhttp {\n$http\n}\n");
    unlink "$dir/conf_test.out";

    return $gw->conf_test;
}

sub good {
    my ($http, $name) = @_;
    my ($rc, $out) = run($http);

    ok($rc == 0 && $out !~ /\[(?:warn|emerg|alert)\]/, $name // $http)
        or diag($out);
}

# one [emerg], that ends with the line, which is 3 for the first one of $http

sub bad {
    my ($http, $re, $name) = @_;
    my ($rc, $out) = run($http);
    my @emerg = grep { /\[emerg\]/ } split /\n/, $out;
    my ($text) = ($emerg[0] // '') =~ /\[emerg\] \S+ (.*)/;

    ok($rc == 1 && @emerg == 1 && $text =~ $re
       && $text =~ / in \S+nginx\.conf:\d+$/ && $out !~ /canary/,
       $name // $http) or diag("$rc: $out");
}

my $iss = 'issuer https://a.example; ';
my $url = 'jwks https://a.example/keys; ';

sub block { "ai_jwt_issuer a { $_[0] }" }
sub full  { block("$iss $url audience ai; $_[0]") }
sub set   { block("$iss jwks file:set.json; audience ai; $_[0]") }
sub hmac  { block("$iss secret env:TEST_AI_SECRET; audience ai; $_[0]") }

# what is right

good(full(''), 'least');
good(block("$iss $url include part.conf;"), 'include');
good(set(''), 'a file');
good(block("$iss jwks file:$dir/set.json; audience ai;"), 'absolute path');
good(hmac(''), 'a secret of the environment');
good(block("$iss secret file:secret; audience ai;"), 'secret of a file');
good(hmac('secret file:secret;'), 'two secrets');
good(hmac('jwks file:set.json;'), 'a secret and a set');
good(block("$iss jwks file:oct.json; alg HS256; audience ai;"),
     'HMAC keys in a file');
good(block("$iss secret env:TEST_AI_64; alg HS384 HS512; audience ai;"),
     'HS384 HS512');
good(block("$iss jwks discovery cache=1h; audience ai;"), 'discovery');
good(block("$iss jwks https://a/k?x=y cache=1s; audience ai;"), 'cache');
good(block("$iss jwks http://127.0.0.1:8080/k; audience ai;"), 'loopback');
good(block("$iss jwks http://localhost/k; audience ai;"), 'localhost');
good(block("$iss jwks http://[::1]/k; audience ai;"), '::1');
good(block("$iss jwks http://keys/k insecure; audience ai;"), 'insecure');
good(block("$iss $url audience off;"), 'audience off');
good(block("$iss $url audience a b c;"), 'several');
good(full('alg RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES384 ES512 EdDSA;'),
     'algorithms');
good(full('type at+jwt; azp a b; leeway 5m; max_age 1h; exp optional;'),
     'rules');
good(full('leeway 0;'), 'no leeway');
good(full('timeout 100ms; cooldown 1s; tls_verify off;'), 'times');
good(full('claim a $ai_tenant; claim b $ai_user; claim c $ai_team; '
          . 'claim d $ai_plan; claim e $ai_scopes; claim f $ai_models; '
          . 'claim g $ai_providers; claim h $ai_endpoints; '
          . 'claim a.b $mine; claim /a/b $mine default=x;'), 'claims');
good(full('require a; require b x "y z";'), 'require');
good(set('') . ' ai_jwt_issuer b { issuer x; jwks file:set.json; '
     . 'audience ai; claim a $mine; }' , 'two issuers');
good('ai_jwt_issuer a { issuer x; jwks file:set.json; audience ai; '
     . 'claim a $mine; } ai_jwt_issuer b { issuer y; jwks file:set.json; '
     . 'audience ai; claim b $mine; }', 'a variable of two issuers');
good("map \$mine \$m { default 1; }\n" . set('claim a $mine;'),
     'a variable in use before');
good('ai_jwt_cache 0;', 'no cache');
good('ai_jwt_cache 100000;', 'a large cache');

# what is missing

bad(block("$url audience ai;"), qr/^issuer "a": add "issuer URL"/);
bad(block("$iss $url"), qr/^issuer "a": add "audience NAME".*audience off/);
bad(block("$iss audience ai;"), qr/^issuer "a" has no keys, add "jwks/);
bad('ai_jwt_issuer { }', qr/invalid number of arguments/);
bad('ai_jwt_issuer "a b" { }', qr/invalid issuer name "a b"/);
bad(full('') . ' ' . full(''), qr/duplicate issuer "a"/);
bad("server { ai_jwt_issuer a { } }", qr/is not allowed here/);

# names

bad(full('audince x;'), qr/unknown directive "audince" in issuer "a", did (?#
                         )you mean "audience"\?/);
bad(full('jwk x;'), qr/unknown directive "jwk" .* "jwks"/);
bad(full('alg;'), qr/invalid number of arguments in "alg" of issuer "a"/);
bad(full($iss), qr/duplicate "issuer" in issuer "a"/);
bad(full('alg RS257;'), qr/unknown algorithm "RS257", did you mean "RS256"/);
bad(full('alg none;'), qr/unknown algorithm "none"/);
bad(block('issuer ""; ' . "$url audience ai;"), qr/invalid "issuer /);

# key sets

bad(block("$iss jwks keys.json; audience ai;"),
    qr/invalid "jwks keys\.json", it is "https:/);
bad(block("$iss jwks ftp://x; audience ai;"), qr/invalid "jwks ftp/);
bad(block("$iss jwks https://; audience ai;"), qr/invalid URL "https:/);
bad(block("$iss jwks https://a:x/; audience ai;"), qr/invalid port/);
bad(block("$iss jwks http://a.example/; audience ai;"),
    qr/could make tokens, use https:.* or add "insecure"/);
bad(block("$iss jwks http://127.example/; audience ai;"), qr/"insecure"/);
bad(block("$iss jwks https://a/ insecure; audience ai;"),
    qr/"insecure" has no effect/);
bad(block("$iss jwks https://a/ cache=0; audience ai;"),
    qr/invalid "jwks cache" of "0", it is a time from 1000ms/);
bad(block("$iss jwks https://a/ cach=1m; audience ai;"),
    qr/invalid parameter "cach=1m" of "jwks"/);
bad(block("$iss jwks file:set.json cache=1m; audience ai;"),
    qr/"cache=1m" has no effect/);
bad(block('issuer acme; jwks discovery; audience ai;'),
    qr/invalid URL "acme\/\.well-known/);
bad(block('issuer http://a.example; jwks discovery; audience ai;'),
    qr/use https/);

bad(block("$iss jwks file:absent; audience ai;"),
    qr/jwks file ".*absent" cannot be opened \(2: /);
bad(block("$iss jwks file:logs; audience ai;"), qr/is not a file/);
bad(block("$iss jwks file:junk; audience ai;"), qr/jwks file ".*junk" \S/);
bad(block("$iss jwks file:empty; audience ai;"), qr/jwks file ".*empty" \S/);
bad(block("$iss jwks file:none; audience ai;"), qr/has no key/);
bad(block("$iss jwks file:small.json; audience ai;"),
    qr/jwks file ".*small\.json" \S/);
bad(block("$iss jwks file:oct.json; audience ai;"),
    qr/jwks file ".*oct\.json" \S/);
bad(block("$iss jwks file:large; audience ai;"), qr/is too large/);
bad(set('alg ES256;'), qr/jwks file ".*set\.json" \S/);

# secrets

bad(block("$iss secret canary; audience ai;"),
    qr/a secret is not written here, use "secret file:/);
bad(block("$iss secret env:TEST_AI_NONE; audience ai;"),
    qr/"TEST_AI_NONE" is not set.*"secret file:/);
bad(block("$iss secret env:TEST_AI_EMPTY; audience ai;"), qr/is empty/);
bad(block("$iss secret env:TEST_AI_SHORT; audience ai;"), qr/shorter/);
bad(block("$iss secret file:short; audience ai;"), qr/shorter/);
bad(block("$iss secret file:absent; audience ai;"),
    qr/cannot open secret file ".*absent"/);
bad(hmac('alg HS512;'), qr/shorter/);
bad(hmac('alg RS256;'), qr/"secret" has no effect, add "HS256"/);
bad(hmac('alg HS256 RS256;'), qr/"alg" needs "jwks"/);
bad(full('alg HS256;'), qr/"alg HS\.\.\." needs "secret file:/);
bad(full('alg HS256; secret env:TEST_AI_SECRET;'), qr/"jwks" has no effect/);

# rules

bad(full('leeway 6m;'), qr/invalid "leeway 6m", it is at most 5m/);
bad(full('leeway x;'), qr/invalid "leeway x"/);
bad(full('max_age 0;'), qr/invalid "max_age 0"/);
bad(full('exp never;'), qr/invalid "exp never", it is "required" or/);
bad(full('type "";'), qr/invalid "type /);
bad(full('azp "";'), qr/invalid value "" of "azp"/);
bad(block("$iss $url audience \"\";"), qr/invalid value "" of "audience"/);
bad(full('timeout 10ms;'), qr/invalid "timeout" of "10ms", it is a time/);
bad(full('timeout 2m;'), qr/invalid "timeout" of "2m"/);
bad(full('cooldown 0;'), qr/invalid "cooldown" of "0"/);
bad(set('timeout 1s;'), qr/"timeout" or "cooldown" has no effect/);
bad(hmac('cooldown 1s;'), qr/"timeout" or "cooldown" has no effect/);
bad(set('tls_verify off;'), qr/"tls_\.\.\." has no effect/);
bad(block("$iss jwks http://localhost/; tls_verify off; audience ai;"),
    qr/"tls_\.\.\." has no effect, .* without TLS/);
bad(full('tls_ca absent;'), qr/cannot open tls_ca ".*absent" \(2: /);
bad(full('tls_ca "";'), qr/"tls_ca" expects a file/);
bad(full('tls_verify maybe;'), qr/invalid "tls_verify maybe"/);
bad(full('tls_verify off; tls_ca set.json;'), qr/"tls_ca" has no effect with/);

{
    my ($rc, $out) = run(full('tls_ca ca.bad;'));
    ok($rc == 1 && $out =~ /cannot use "tls_ca .*ca\.bad" in/,
       'tls_ca without certificates') or diag($out);
}

# claims

bad(full('claim a;'), qr/invalid number of arguments in "claim"/);
bad(full('claim a b;'), qr/invalid "claim a b", the second is a variable/);
bad(full('claim a $;'), qr/the second is a variable/);
bad(full('claim "" $x;'), qr/invalid path "" of "claim"/);
bad(full('claim a $x-y;'), qr/invalid variable "\$x-y"/);
bad(full('claim a $ai_tennant;'), qr/"\$ai_tennant" is not set by a claim, (?#
                                   )did you mean "ai_tenant"\?/);
bad(full('claim a $ai_key_id;'), qr/"\$ai_key_id" is not set by a claim/);
bad(full('claim a $x defult=1;'), qr/invalid parameter "defult=1"/);
bad(full('claim a $request_uri;'), qr/duplicate "request_uri" variable/);
bad("map \$host \$m { default 1; }\n" . full('claim a $m;'),
    qr/variable "\$m" exists already/);
bad(full('require "";'), qr/invalid "require"/);
bad(full('require;'), qr/invalid number of arguments/);

# use

bad(full('') . ' server { location / { ai_auth jwt=b; } }',
    qr/no "ai_jwt_issuer b"/);

bad('ai_jwt_cache x;', qr/invalid/);
bad('ai_jwt_cache 10000000;', qr/value|must be|at most/);
bad('ai_jwt_cache 1; ai_jwt_cache 2;', qr/duplicate/);
bad('server { ai_jwt_cache 1; }', qr/is not allowed here/);

done_testing();
