#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Tokens: each rule of ai_jwt_issuer, what claims become, the cache of verified
# tokens, revocation, and keys in files.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP;
use MIME::Base64 qw(encode_base64url decode_base64url);
use Test::More;
use Time::HiRes qw(time sleep);

use AI::Gateway;
use AI::Jwt;

my $missing = AI::Gateway::missing() // AI::Jwt::missing();
plan skip_all => $missing if $missing;

my $secret = 'canary-' . 'secret-of-32-bytes-or-more-0123456789abcdef' x 2;
my $gw = AI::Gateway->new(workers => 2,
                          env => { TEST_AI_SECRET => $secret },
                          files => { ok => "ok\n", secret2 => "$secret-2\n",
                                     'keys.json' => '[]',
                                     'revoked.json' => '[]' });
my $dir = $gw->dir;
my $jwt = AI::Jwt->new(dir => $dir);

my $hs = $jwt->secret('HS256', $secret);
my $hs2 = $jwt->secret('HS256', "$secret-2");
my %key = map { $_ => $jwt->key($_, kid => "k$_") }
          qw(RS256 PS256 ES256 ES384 ES512 EdDSA);
my $rs = $key{RS256};
my $other = $jwt->key('RS256', kid => 'kRS256');
my $next = $jwt->key('ES256', kid => 'next');

$gw->write_file('set.json', AI::Jwt::jwks(values %key));

my %issuer = (
    hs      => 'secret env:TEST_AI_SECRET; secret file:secret2; '
               . 'alg HS256 HS512;',
    set     => 'jwks file:set.json; alg RS256 RS384 RS512 PS256 ES256 ES384 '
               . 'ES512 EdDSA;',
    default => 'jwks file:set.json;',
    one     => 'jwks file:set.json; alg ES256;',
    both    => 'jwks file:set.json; secret env:TEST_AI_SECRET;',
    type    => 'secret env:TEST_AI_SECRET; type application/at+JWT;',
    azp     => 'secret env:TEST_AI_SECRET; azp web cli;',
    leeway  => 'secret env:TEST_AI_SECRET; leeway 0;',
    age     => 'secret env:TEST_AI_SECRET; max_age 1h; leeway 5s;',
    noexp   => 'secret env:TEST_AI_SECRET; exp optional;',
    exp     => 'secret env:TEST_AI_SECRET; exp required;',
    require => 'secret env:TEST_AI_SECRET; require email_verified true; '
               . 'require groups "AI Users" admins; require scope ai; '
               . 'require org.id;',
    auds    => 'secret env:TEST_AI_SECRET; audience one two;',
    noaud   => 'secret env:TEST_AI_SECRET; audience off;',
    claim   => 'secret env:TEST_AI_SECRET; claim tid $ai_tenant; '
               . 'claim org.name $ai_tenant; claim email $ai_user; '
               . 'claim team $ai_team default=none; '
               . 'claim /realm/roles/1 $ai_plan; claim roles $ai_scopes; '
               . 'claim models $ai_models; claim realm.roles $jwt_roles; '
               . 'claim https://acme.com/x $jwt_url; claim n $jwt_n; '
               . 'claim o $jwt_o; claim evil $jwt_evil; '
               . 'claim absent $jwt_absent default=-; claim evil $shared;',
    claim2  => 'secret env:TEST_AI_SECRET; claim sub $shared;',
    lists   => 'secret env:TEST_AI_SECRET; claim models $ai_models '
               . 'default=*; claim eps $ai_endpoints; '
               . 'claim providers $ai_providers;',
    wide    => 'jwks file:rotate.json;',
);

$gw->write_file('rotate.json', AI::Jwt::jwks($rs));

my $issuers = '';
my $locations = '';

for my $name (sort keys %issuer) {
    my $aud = $issuer{$name} =~ /audience/ ? '' : 'audience ai;';

    $issuers .= "ai_jwt_issuer $name { issuer https://$name.example; $aud "
                . "$issuer{$name} }\n";
    $locations .= "location /$name/ { alias $dir/; ai_auth jwt=$name; }\n"
                  . "location /m/$name/ { ai_pass m; ai_auth jwt=$name; }\n";
}

$gw->write_conf(my $conf = <<"END");
events {
}

http {
    ai_data $dir interval=50ms;
    ai_jwt_cache 100;
    ai_auth_log rate=1000r/s;
    large_client_header_buffers 4 32k;

    log_format claims '\$request_uri|\$ai_key_id|\$ai_user|\$jwt_roles';
    access_log $dir/access.log claims;

    $issuers

    ai_provider m { dialect openai; endpoint http://127.0.0.1:9; key none; }
    ai_provider static { text "hello"; }
    ai_model gpt-4o { target static/x; }
    ai_model claude { target static/x; }

    server {
        listen 127.0.0.1:%%PORT_0%%;

        add_header X-Key "\$ai_key_id" always;
        add_header X-Who "\$ai_tenant|\$ai_user|\$ai_team|\$ai_plan" always;
        add_header X-Scopes "\$ai_scopes" always;
        add_header X-Claims "\$jwt_roles|\$jwt_url|\$jwt_n|\$jwt_o" always;
        add_header X-Evil "<\$jwt_evil>" always;
        add_header X-More "\$jwt_absent|\$shared" always;

        $locations

        location /two/ { alias $dir/; ai_auth jwt=claim jwt=claim2; }
        location /lists/v1/ { ai_pass model; ai_auth jwt=lists; }
    }
}
END

$conf =~ s/ai_pass m;/ai_pass static;/g;
$gw->write_conf($conf);
$gw->start;

my $now = int time;

sub claims {
    my ($name, %more) = @_;
    my %c = (iss => "https://$name.example", aud => 'ai', sub => 'alice',
             exp => $now + 600, iat => $now, %more);

    delete $c{$_} for grep { !defined $c{$_} } keys %c;
    return \%c;
}

sub ask {
    my ($name, $token) = @_;

    return $gw->client->get("/$name/ok",
                            headers => [ Authorization => "Bearer $token" ]);
}

sub good {
    my ($name, $token, $what) = @_;
    my $r = ask($name, $token);

    is($r->{status}, 200, "$name: $what") or diag($r->{body});
    return $r;
}

sub bad {
    my ($name, $token, $what, $log) = @_;
    my $before = length $gw->error_log;
    my $r = ask($name, $token);

    ok($r->{status} == 401 && ($r->{headers}{'x-key'} // '') eq '',
       "$name: $what") or diag("$r->{status} $r->{body}");
    is($r->{headers}{'www-authenticate'} =~ /^Bearer / ? 1 : 0, 1,
       "$name: $what: challenge");

    if ($log) {
        my ($line) = grep { /refused/ }
                     split /\n/, substr $gw->error_log, $before;
        like($line // '', $log, "$name: $what: log");
    }

    return $r;
}

# kinds of keys

for my $alg (sort keys %key) {
    my $r = good('set', $jwt->token($key{$alg}, claims('set')), $alg);
    is($r->{headers}{'x-key'}, 'set:alice', "$alg: name of the key");
}

for my $alg (qw(RS256 PS256 ES256 ES384 ES512 EdDSA)) {
    good('default', $jwt->token($key{$alg}, claims('default')),
        "$alg by default");
}

good('hs', $jwt->token($hs, claims('hs')), 'HS256');
good('hs', $jwt->token($hs2, claims('hs')), 'HS256, the second secret');
good('hs', $jwt->token({ %$hs, alg => 'HS512' }, claims('hs')), 'HS512');
good('both', $jwt->token($hs, claims('both')), 'HS256 beside a set');
good('both', $jwt->token($rs, claims('both')), 'RS256 beside a secret');
good('set', $jwt->token($rs, claims('set'), kid => undef), 'without kid');
good('set', $jwt->token({ %$rs, alg => 'RS256' }, claims('set'),
                       jku => 'http://127.0.0.1:1/', jwk => $other->{jwk},
                       x5u => 'http://127.0.0.1:1/', x5c => [ 'x' ]),
    'jku, jwk and x5u mean nothing');

bad('hs', $jwt->token({ %$hs, alg => 'HS384' }, claims('hs')),
   'HS384 is not listed', qr/algorithm/);
bad('set', $jwt->token($other, claims('set')), 'another key of this kid',
   qr/signature/);
bad('set', $jwt->token($other, claims('set'), kid => 'nobody'), 'unknown kid',
   qr/kid/);
bad('set', $jwt->token($other, claims('set'), jwk => $other->{jwk},
                      kid => undef), 'jwk of the token', qr/signature/);
bad('one', $jwt->token($rs, claims('one')), 'RS256 where ES256 is listed',
   qr/algorithm/);
bad('default', $jwt->token($hs, claims('default')), 'HS256 by default',
   qr/algorithm/);
bad('set', $jwt->token($jwt->secret('HS256', $rs->{jwk}{n}), claims('set')),
   'HMAC with a public key', qr/algorithm/);
bad('both', $jwt->token({ alg => 'HS256', secret => $rs->{jwk}{n} },
                       claims('both')), 'the same where HS256 is allowed',
   qr/signature|kid/);

for my $alg ('none', 'None', 'NONE', '') {
    my $text = encode_base64url(encode_json({ alg => $alg })) . '.'
               . encode_base64url(encode_json(claims('both')));

    bad('both', "$text.", "alg \"$alg\"");
    bad('both', "$text.AAAA", "alg \"$alg\" with a signature");
}

bad('hs', $jwt->token($hs, claims('hs'), crit => [ 'exp' ]), 'crit',
   qr/crit/);
bad('hs', $jwt->token($hs, claims('hs'), b64 => JSON::PP::false), 'b64');
bad('hs', $jwt->token($hs, claims('hs'), zip => 'DEF'), 'zip');
bad('hs', 'a.b.c', 'junk');
bad('hs', 'x' x 20000, 'long junk');
bad('hs', $jwt->token($hs, claims('hs', x => 'x' x 13000)), 'too long');

my $plain = $jwt->token($hs, claims('hs'));

bad('hs', substr($plain, 0, -1), 'cut');
bad('hs', "$plain.$plain", 'five parts');
bad('hs', "$plain=", 'padding');

{
    my ($h, $p, $s) = split /\./, $plain;
    my $c = decode_base64url($p);

    $c =~ s/alice/admin/;
    bad('hs', join('.', $h, encode_base64url($c), $s), 'other claims',
       qr/signature/);
}

bad('hs', $jwt->token($hs, '{"iss":"https://hs.example","iss":"https://x",'
                          . '"aud":"ai","sub":"a","exp":' . ($now + 60)
                          . '}'), 'duplicate claim');
bad('hs', $jwt->token($hs, 'null'), 'claims are no object');

# claims of the standard

bad('hs', $jwt->token($hs, claims('hs', iss => 'https://evil.example')),
   'another issuer', qr/iss/);
bad('hs', $jwt->token($hs, claims('hs', iss => 'https://hs.example/')),
   'issuer with a slash', qr/iss/);
bad('hs', $jwt->token($hs, claims('hs', iss => undef)), 'no issuer');
bad('hs', $jwt->token($hs, claims('hs', aud => 'web')), 'another audience',
   qr/aud/);
bad('hs', $jwt->token($hs, claims('hs', aud => [ 'a', 'b' ])),
   'other audiences', qr/aud/);
bad('hs', $jwt->token($hs, claims('hs', aud => undef)), 'no audience');
good('hs', $jwt->token($hs, claims('hs', aud => [ 'web', 'ai' ])),
    'one of two audiences');
good('auds', $jwt->token($hs, claims('auds', aud => 'two')), 'second audience');
bad('auds', $jwt->token($hs, claims('auds', aud => 'ai')), 'none of both');
good('noaud', $jwt->token($hs, claims('noaud', aud => undef)), 'audience off');

bad('hs', $jwt->token($hs, claims('hs', exp => $now - 61)), 'expired',
   qr/expired/);
good('hs', $jwt->token($hs, claims('hs', exp => $now - 30)), 'within leeway');
bad('leeway', $jwt->token($hs, claims('leeway', exp => $now - 1)),
   'expired, no leeway', qr/expired/);
bad('hs', $jwt->token($hs, claims('hs', nbf => $now + 300)), 'not yet',
   qr/not valid yet|not_yet/);
good('hs', $jwt->token($hs, claims('hs', nbf => $now + 30)),
    'nbf within leeway');
bad('leeway', $jwt->token($hs, claims('leeway', nbf => $now + 30)),
   'nbf, no leeway');
bad('hs', $jwt->token($hs, claims('hs', exp => undef)), 'no exp');
bad('exp', $jwt->token($hs, claims('exp', exp => undef)), 'exp required');
bad('hs', $jwt->token($hs, claims('hs', exp => '9999999999')),
   'exp is a string');
good('noexp', $jwt->token($hs, claims('noexp', exp => undef)), 'exp optional');
bad('noexp', $jwt->token($hs, claims('noexp', exp => $now - 100)),
   'exp optional, but expired');

good('age', $jwt->token($hs, claims('age', iat => $now - 3000)), 'young');
bad('age', $jwt->token($hs, claims('age', iat => $now - 3700)), 'too old');
bad('age', $jwt->token($hs, claims('age', iat => undef)), 'of unknown age');

good('type', $jwt->token($hs, claims('type'), typ => 'at+jwt'), 'type');
good('type', $jwt->token($hs, claims('type'), typ => 'application/AT+JWT'),
    'type, long form');
bad('type', $jwt->token($hs, claims('type')), 'another type', qr/typ/);
bad('type', $jwt->token($hs, claims('type'), typ => undef), 'no type');
bad('hs', $jwt->token($hs, claims('hs'), typ => 'logout+jwt'),
   'token of another kind');

good('azp', $jwt->token($hs, claims('azp', azp => 'cli')), 'azp');
bad('azp', $jwt->token($hs, claims('azp', azp => 'evil')), 'another azp',
   qr/azp/);
bad('azp', $jwt->token($hs, claims('azp')), 'no azp');

# require

my %fine = (email_verified => JSON::PP::true, groups => [ 'x', 'AI Users' ],
            scope => 'openid ai', org => { id => 7 });

good('require', $jwt->token($hs, claims('require', %fine)), 'all there');
good('require', $jwt->token($hs, claims('require', %fine,
                                       groups => 'admins')), 'a string');

for ([ email_verified => JSON::PP::false ], [ email_verified => undef ],
     [ groups => [ 'AI', 'Users' ] ], [ groups => 'admins x' ],
     [ groups => "x\0admins" ], [ groups => "x\1admins" ],
     [ groups => [] ], [ groups => [ "x\0admins" ] ],
     [ groups => [ 'a', "x\0admins" ] ], [ scope => 'openid' ],
     [ scope => 'aid' ], [ org => {} ], [ org => undef ])
{
    bad('require', $jwt->token($hs, claims('require', %fine, @$_)),
       "$_->[0] is " . JSON::PP->new->allow_nonref->encode($_->[1]),
       qr/required claim/);
}

# who it is

my $r = good('hs', $jwt->token($hs, claims('hs')), 'alice');
is($r->{headers}{'x-who'}, '|alice||', 'sub is the user');

$r = good('hs', $jwt->token($hs, claims('hs', sub => undef, jti => 'j-1')),
         'no sub');
is($r->{headers}{'x-key'}, 'hs/jti:j-1', 'named by jti');
is($r->{headers}{'x-who'}, '|||', 'no user');
$r = good('hs', $jwt->token($hs, claims('hs', sub => undef,
                                       client_id => 'c-1')), 'no jti');
is($r->{headers}{'x-key'}, 'hs/client_id:c-1', 'named by client_id');
$r = good('hs', $jwt->token($hs, claims('hs', sub => '', azp => 'a-1')),
         'empty sub');
is($r->{headers}{'x-key'}, 'hs/azp:a-1', 'named by azp');
bad('hs', $jwt->token($hs, claims('hs', sub => undef)), 'nobody', qr/no \\x22sub/);
bad('hs', $jwt->token($hs, claims('hs', sub => "al\nice")),
   'a line break in sub');
bad('hs', $jwt->token($hs, claims('hs', sub => 'a' x 513)), 'a long sub');
bad('hs', $jwt->token($hs, claims('hs', sub => 17)), 'a number as sub');
good('hs', $jwt->token($hs, claims('hs', sub => 'a' x 512)), 'sub of 512');

for ([ scope => 'a b' ], [ scp => [ 'a', 'b' ] ], [ scopes => [ 'a', 'b' ] ],
     [ scp => 'a b' ])
{
    $r = good('hs', $jwt->token($hs, claims('hs', @$_)), $_->[0]);
    is($r->{headers}{'x-scopes'}, 'a b', "$_->[0]: scopes");
}

# claims to variables

my %all = (tid => 't-1', org => { name => 'o' }, email => 'al@x',
           realm => { roles => [ 'r1', 'r2' ] }, roles => [ 's1', 's2' ],
           'https://acme.com/x' => 'u', n => 1.50, o => { a => [ 1 ] },
           evil => "a\r\nX-Bad: 1\0", models => [ '*' ]);

$r = good('claim', $jwt->token($hs, claims('claim', %all)), 'claims');
is($r->{headers}{'x-who'}, 't-1|al@x|none|r2', 'principal');
is($r->{headers}{'x-scopes'}, 's1 s2', 'scopes');
like($r->{headers}{'x-claims'}, qr/^r1 r2\|u\|1\.50?\|\{"a":\[1\]\}$/,
     'variables');
is($r->{headers}{'x-evil'}, '<aX-Bad: 1>', 'no control characters');
is($r->{headers}{'x-bad'}, undef, 'no header by a claim');
is($r->{headers}{'x-more'}, '-|aX-Bad: 1', 'default');

bad('claim', $jwt->token($hs, claims('claim', %all, tid => "t\n-1")),
    'a line break in the tenant', qr/control characters/);
bad('claim', $jwt->token($hs, claims('claim', %all, roles => [ "s\x{7f}" ])),
    'DEL in a scope', qr/control characters/);

delete @all{qw(tid email)};
$r = good('claim', $jwt->token($hs, claims('claim', %all)), 'fewer claims');
is($r->{headers}{'x-who'}, 'o||none|r2', 'the second, and none');

$r = good('two', $jwt->token($hs, claims('claim2', evil => 'e')),
         'the second of two issuers');
is($r->{headers}{'x-more'}, '|alice', 'variable of two issuers');
is($r->{headers}{'x-key'}, 'claim2:alice', 'name of the issuer');
bad('two', $jwt->token($hs, claims('hs')), 'a third issuer');
bad('hs', 'aigw_live_abcdef', 'no token', undef);

$r = ask('hs', $jwt->token($hs, claims('hs', iss => 'x')));
is($r->{headers}{'x-claims'}, '|||', 'no claims of a refused token');

ok($gw->wait_log(qr{/claim/ok\|claim:alice\|al\@x\|r1 r2$}, 'access.log'),
   'in the access log');

# lists of what may be called

sub model {
    my ($claims, $model) = @_;

    my $token = $jwt->token($hs, claims('lists', eps => [ 'chat' ],
                                        providers => '*', %$claims));
    my $r = $gw->client->post('/lists/v1/chat/completions',
                              { model => $model, messages =>
                                [ { role => 'user', content => 'Hi' } ] },
                              headers => [ 'x-api-key' => $token ]);
    return $r->{status};
}

is(model({}, 'gpt-4o'), 200, 'default of a list');
is(model({ models => [ 'gpt-*' ] }, 'gpt-4o'), 200, 'in the list');
is(model({ models => [ 'gpt-*' ] }, 'claude'), 403, 'not in the list');
is(model({ models => 'x claude' }, 'claude'), 200, 'words of a string');
is(model({ models => [] }, 'claude'), 403, 'an empty list');
is(model({ models => [ 'x *' ] }, 'claude'), 403,
   'an item with a space is not two');
is(model({ providers => undef }, 'gpt-4o'), 403,
   'a list that is missing allows nothing');
is(model({ eps => 'embeddings' }, 'gpt-4o'), 403, 'another endpoint');

# cache: what is cached is still revoked, still expires

my $token = $jwt->token($hs, claims('hs', sub => 'bob', jti => 'b-1',
                                    exp => $now + 600));
good('hs', $token, 'bob') for 1 .. 4;

my $mallory = $jwt->token($hs, claims('hs', sub => 'mal', jti => 'b-2'));
good('hs', $mallory, 'mal') for 1 .. 4;

sub revoked {
    my ($list, $check) = @_;
    my $start = time();

    $gw->write_file('revoked.new', encode_json($list));
    rename "$dir/revoked.new", "$dir/revoked.json";

    my $left = 0;

    # as many answers in a row as would not come from one worker only
    $gw->wait_for(sub {
        $left = $check->() ? $left + 1 : 0;
        return $left > 8;
    }, 5);

    return $left > 8;
}

ok(revoked([ { jti => 'b-1' }, { sub => 'mal', issuer => 'hs' } ],
           sub { ask('hs', $token)->{status} == 401
                 && ask('hs', $mallory)->{status} == 401 }),
   'revoked by jti, by sub and issuer');
ok(revoked([ { sub => 'mal', issuer => 'https://hs.example' } ],
           sub { ask('hs', $token)->{status} == 200
                 && ask('hs', $mallory)->{status} == 401 }),
   'revoked by sub and "iss"');
ok(revoked([ { sub => 'mal', issuer => 'set' } ],
           sub { ask('hs', $mallory)->{status} == 200 }),
   'revoked of another issuer');

$token = $jwt->token($hs, claims('leeway', exp => int(time()) + 4));
good('leeway', $token, 'about to expire') for 1 .. 4;
sleep 4.1;
bad('leeway', $token, 'has expired in the cache') for 1 .. 4;

# more tokens than fit

good('hs', $jwt->token($hs, claims('hs', sub => "u$_")), "user $_")
    for 1 .. 130;
good('hs', $plain, 'alice again');

# a set in a file changes

$token = $jwt->token($rs, claims('wide'));
my $new = $jwt->token($next, claims('wide'));
good('wide', $token, 'before the change') for 1 .. 4;
bad('wide', $new, 'a key to come');

sub all {
    my ($check) = @_;
    my $n = 0;

    $gw->wait_for(sub { $n = $check->() ? $n + 1 : 0; $n > 8 }, 5);
    return $n > 8;
}

$gw->write_file('rotate.json', AI::Jwt::jwks($next));
ok(all(sub { ask('wide', $new)->{status} == 200
             && ask('wide', $token)->{status} == 401 }),
   'a set that is written in place, cached tokens end');

$gw->write_file('rotate.json', '{"keys":[');
ok($gw->wait_log(qr/jwks file ".*rotate\.json" .*stay in use/), 'broken set');
good('wide', $new, 'the old keys stay') for 1 .. 4;
sleep 0.6;
is(() = $gw->error_log =~ /rotate\.json" .*stay in use/g, 1, 'logged once');

$gw->write_file('rotate.new', AI::Jwt::jwks($rs));
rename "$dir/rotate.new", "$dir/rotate.json";
ok(all(sub { ask('wide', $token)->{status} == 200 }), 'a set that is renamed');
ok($gw->wait_log(qr/rotate\.json" was read again/), 'logged');

unlink "$dir/rotate.json";
ok($gw->wait_log(qr/rotate\.json" cannot be opened.*stay in use/),
   'file is gone');
good('wide', $token, 'the old keys stay');

mkdir "$dir/data1"; mkdir "$dir/data2";
$gw->write_file('data1/rotate.json', AI::Jwt::jwks($rs));
$gw->write_file('data2/rotate.json', AI::Jwt::jwks($next));
symlink 'data1', "$dir/..data";
symlink '..data/rotate.json', "$dir/rotate.json";
ok(all(sub { ask('wide', $token)->{status} == 200 }), 'a link');
symlink 'data2', "$dir/..tmp";
rename "$dir/..tmp", "$dir/..data";
ok(all(sub { ask('wide', $new)->{status} == 200 }), 'a link that is swapped');

# a reload keeps what is there

$gw->reload;
good('wide', $new, 'after a reload') for 1 .. 4;

# without a cache

$conf =~ s/ai_jwt_cache 100/ai_jwt_cache 0/;
$gw->reload(conf => $conf);
good('hs', $plain, 'ai_jwt_cache 0') for 1 .. 4;
ok(revoked([ { sub => 'alice' } ],
           sub { ask('hs', $plain)->{status} == 401 }), 'revoked without cache');

my $log = $gw->error_log . $gw->read_file('access.log');
unlike($log, qr/canary-/, 'no secret in a log');
unlike($log, qr/\Q$plain\E|eyJ/, 'no token in a log');

$gw->finish;

done_testing();
