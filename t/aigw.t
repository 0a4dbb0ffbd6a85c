#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# The command-line tool: keys, formats of files, errors, what is written when
# it is killed, and files of a million keys.

use strict;
use warnings;

use Digest::SHA qw(sha256_hex hmac_sha256_hex);
use FindBin;
use lib "$FindBin::Bin/lib";

use File::Temp qw(tempdir);
use IO::Handle;
use JSON::PP;
use POSIX qw(:sys_wait_h strftime);
use Test::More;
use Time::HiRes qw(time sleep);

use AI::Tool;

my $missing = AI::Tool::missing();
plan skip_all => $missing if $missing;

my $umask = umask 022;
my $top = tempdir('aigw-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my $dirs = 0;
my $dir;

delete $ENV{AIGW_DATA};

sub fresh {
    $dir = "$top/" . ++$dirs;
    mkdir $dir or die "$dir: $!";
    return $dir;
}

# runs it on the directory of the moment

sub aigw {
    my @args = @_;
    my %opt = @args && ref $args[-1] ? %{ pop @args } : ();

    return AI::Tool::run([ @args, $opt{nodata} ? () : ('--data', $dir) ],
                         %opt);
}

sub keys_ok {
    my $r = aigw('keys', @_);
    is($r->{rc}, 0, "keys @_[0 .. ($#_ > 2 ? 2 : $#_)]") or diag($r->{err});
    return $r;
}

sub usage_like {
    my ($args, $re, $name) = @_;
    my $r = aigw(@$args);
    is($r->{rc}, 2, "$name: code");
    like($r->{err}, $re, "$name: message");
    is($r->{out}, '', "$name: no output");
}

sub fails_like {
    my ($args, $re, $name, %opt) = @_;
    my $r = aigw(@$args, \%opt);
    is($r->{rc}, 1, "$name: code");
    like($r->{err}, $re, "$name: message");
}

sub slurp { return AI::Tool::slurp($_[0]) }

sub spew {
    my ($name, $text) = @_;
    open my $f, '>', $name or die "$name: $!";
    binmode $f;
    print $f $text;
    close $f or die "$name: $!";
}

sub records {
    return map { decode_json($_) } split /\n/, slurp("$dir/keys.jsonl");
}

sub record { return (grep { $_->{id} eq $_[0] } records())[0] }

sub state_of {
    my ($key, @args) = @_;
    return decode_json(aigw('keys', 'verify', '--json', @args,
                            { in => "$key\n" })->{out})->{state};
}

my $hash_a = 'sha256:' . 'a' x 64;
my $hash_b = 'sha256:' . 'b' x 64;


# form of a key, computed here independently

sub crc32 {
    my ($text) = @_;
    my $crc = 0xffffffff;

    for my $byte (unpack 'C*', $text) {
        $crc ^= $byte;
        $crc = $crc & 1 ? ($crc >> 1) ^ 0xedb88320 : $crc >> 1 for 1 .. 8;
    }

    return $crc ^ 0xffffffff;
}

is(crc32('123456789'), 0xcbf43926, 'CRC-32 of the test itself');

sub base62 {
    my ($n, $digits) = @_;
    my @set = (0 .. 9, 'A' .. 'Z', 'a' .. 'z');
    my $text = '';

    for (1 .. $digits) {
        $text = $set[$n % 62] . $text;
        $n = int($n / 62);
    }

    return $text;
}

sub well_formed {
    my ($key, $env) = @_;

    return $key =~ /^(aigw_${env}_([0-9A-Za-z]{8})[0-9A-Za-z]{31})
                     ([0-9A-Za-z]{6})$/x
           && $3 eq base62(crc32($1), 6) ? $2 : undef;
}


# create

fresh();

my $r = keys_ok('create');
like($r->{out}, qr/^aigw_\S+\n$/, 'only the key on the output');

my ($key) = $r->{out} =~ /(\S+)/;
my $id = well_formed($key, 'live');
ok($id, 'form and checksum') or diag($key);

my ($rec) = records();
is($rec->{id}, "k_$id", 'id of the record is that of the key');
is($rec->{hash}, 'sha256:' . sha256_hex($key), 'hash');
like($rec->{created}, qr/^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ$/, 'created');
is_deeply([ sort keys %$rec ], [ qw(created hash id) ], 'nothing else');

unlike(slurp("$dir/keys.jsonl"), qr/\Q@{[ substr $key, 18 ]}/,
       'no secret in the file');
unlike($r->{err}, qr/\Q@{[ substr $key, 18 ]}/, 'nor in the messages');
like($r->{err}, qr/key k_$id was added to \S+keys\.jsonl/, 'message');

my @st = stat "$dir/keys.jsonl";
is($st[2] & 07777, 0640, 'mode of a new file');

is(aigw('keys', 'create', '-q')->{err}, '', 'quiet');

# the secrets of 40 keys: each digit appears, none twice as often as others

my %digits;

for (1 .. 40) {
    my $k = aigw('keys', 'create', '-q')->{out};
    $digits{$_}++ for split //, substr $k, 10, 40;
}

is(scalar keys %digits, 62, 'all digits are used');
cmp_ok((sort { $b <=> $a } values %digits)[0], '<', 80, 'none too often');

$r = decode_json(keys_ok('create', '--json', '--env', 'test',
                         '--id=team-a', '--expires', '30d')->{out});
is($r->{id}, 'team-a', '--json: id');
ok(well_formed($r->{key}, 'test'), '--env');
like($r->{expires}, qr/^20/, '--json: expires');
is(record('team-a')->{hash}, 'sha256:' . sha256_hex($r->{key}),
   '--json: the key');

my ($k2) = keys_ok('create', '--id', 'k_AbCd1234')->{out} =~ /(\S+)/;
is(well_formed($k2, 'live'), 'AbCd1234', 'an id that fits is in the key');

my $now = time;

keys_ok('create', '--id', 'all', '--tenant', 'acme', '--user', "J\xc3\xb6rg",
        '--team', 'search', '--plan', 'gold', '--scope', 'chat,embed',
        '--scope', 'admin', '--model', 'gpt-*', '--model', 'claude-*,o1',
        '--deny', 'gpt-5-pro', '--provider', 'openai,azure',
        '--endpoint', 'chat,models', '--identity', 'CN=a,O=b',
        '--identity', 'CN=c', '--name', 'CI of "search"', '--comment', 'why',
        '--limit', 'perkey:requests=60r/m,tokens=100k/m',
        '--limit', 'other:concurrent=2', '--quota', 'spend:usd=100/month',
        '--meta', 'cost_centre=12=3', '--meta', 'x=',
        '--not-before', '2020-02-29T12:00:00+02:00', '--expires', '1d12h',
        '--disabled');

$rec = record('all');
my $expires = delete $rec->{expires};

my ($y, $mo, $d, $h, $mi, $s) = $expires =~ /(\d+)/g;
require Time::Local;
my $left = Time::Local::timegm($s, $mi, $h, $d, $mo - 1, $y) - $now;
ok($left > 36 * 3600 - 3 && $left < 36 * 3600 + 60, '--expires from now')
    or diag("$expires, $left s");

delete @$rec{qw(hash created)};

is_deeply($rec, {
    id => 'all', tenant => 'acme', user => "J\x{f6}rg", team => 'search',
    plan => 'gold', scopes => [ qw(chat embed admin) ],
    models => [ qw(gpt-* claude-* o1) ], deny => [ 'gpt-5-pro' ],
    providers => [ qw(openai azure) ], endpoints => [ qw(chat models) ],
    identities => [ 'CN=a,O=b', 'CN=c' ], name => 'CI of "search"',
    comment => 'why', disabled => JSON::PP::true,
    not_before => '2020-02-29T10:00:00Z',
    limits => { perkey => { requests => '60r/m', tokens => '100k/m' },
                other => { concurrent => '2' } },
    quotas => { spend => { usd => '100/month' } },
    metadata => { cost_centre => '12=3', x => '' },
}, 'all members');

is(aigw('keys', 'create', '--no-key', '--id', 'cert', '--identity', 'CN=z')
   ->{out}, "cert\n", '--no-key: the id');
is(record('cert')->{hash}, undef, '... without a hash');

# HMAC

spew("$dir/secret", "  pepper and more salt\n\n");
($key) = keys_ok('create', '--id', 'hm', '--secret-file', "$dir/secret")
         ->{out} =~ /(\S+)/;
is(record('hm')->{hash},
   'hmac-sha256:' . hmac_sha256_hex($key, 'pepper and more salt'),
   '--secret-file');
is(state_of($key, '--secret-file', "$dir/secret"), 'active', '... verified');
is(state_of($key), 'unknown', '... not without it');
like(aigw('keys', 'verify', { in => "$key\n" })->{err}, qr/--secret-file/,
     '... and why');

$ENV{AIGW_TEST_PEPPER} = 'pepper and more salt';
is(state_of($key, '--secret-env', 'AIGW_TEST_PEPPER'), 'active',
   '--secret-env');

fails_like([ 'keys', 'create', '--secret-file', "$dir/none" ],
           qr/cannot open .*none/, 'no secret file');
spew("$dir/empty", "\n");
fails_like([ 'keys', 'create', '--secret-file', "$dir/empty" ],
           qr/less than 16 bytes/, 'empty secret');
spew("$dir/short", 'x' x 15);
fails_like([ 'keys', 'create', '--secret-file', "$dir/short" ],
           qr/less than 16 bytes/, 'short secret');
spew("$dir/long", 'x' x 16385);
fails_like([ 'keys', 'create', '--secret-file', "$dir/long" ],
           qr/too long/, 'long secret');
fails_like([ 'keys', 'create', '--secret-env', 'AIGW_TEST_NONE' ],
           qr/is not set/, 'no secret in the environment');
usage_like([ 'keys', 'create', '--secret-env', 'A', '--secret-file', 'B' ],
           qr/not both/, 'two secrets');

# what is wrong

my $before = slurp("$dir/keys.jsonl");

usage_like([ 'keys', 'create', @{ $_->[0] } ], $_->[1], "@{ $_->[0] }")
    for (
        [ [ '--env', 'Live' ], qr/invalid --env/ ],
        [ [ '--env', 'x' x 17 ], qr/invalid --env/ ],
        [ [ '--env', '' ], qr/invalid --env/ ],
        [ [ '--id', 'a b' ], qr/invalid --id/ ],
        [ [ '--id', '' ], qr/invalid --id/ ],
        [ [ '--tenant', '' ], qr/value of --tenant is empty/ ],
        [ [ '--tenant', "a\nb" ], qr/control character in .*--tenant/ ],
        [ [ '--tenant', 'a', '--tenant=b' ], qr/--tenant is given twice/ ],
        [ [ '--tenant', "\xff" ], qr/not UTF-8/ ],
        [ [ '--tenant=' . "\xff" ], qr/not UTF-8/ ],
        [ [ '--scope', 'a,,b' ], qr/--scope: an item is empty/ ],
        [ [ '--scope', 'a b' ], qr/--scope: a space/ ],
        [ [ '--model', '' ], qr/--model is empty/ ],
        [ [ '--deny', 'a,' ], qr/--deny: an item is empty/ ],
        [ [ '--provider', ',a' ], qr/--provider: an item is empty/ ],
        [ [ '--endpoint', 'chats' ],
          qr/unknown endpoint "chats", did you mean "chat"/ ],
        [ [ '--limit', 'perkey' ], qr/invalid --limit .*zone:name=value/ ],
        [ [ '--limit', 'z:requests' ], qr/invalid --limit/ ],
        [ [ '--limit', 'z:requests=' ], qr/invalid --limit/ ],
        [ [ '--limit', 'z:a=1,a=2' ], qr/"a" of zone "z" is given twice/ ],
        [ [ '--quota', 'a b:usd=1' ], qr/invalid --quota/ ],
        [ [ '--quota', ':usd=1' ], qr/invalid --quota/ ],
        [ [ '--meta', 'a' ], qr/invalid --meta/ ],
        [ [ '--meta', 'A=1' ], qr/invalid --meta/ ],
        [ [ '--meta', 'a=1', '--meta', 'a=2' ], qr/"a" is given twice/ ],
        [ [ '--identity', 'a', '--identity', 'a' ], qr/given twice/ ],
        [ [ '--identity', '' ], qr/--identity is empty/ ],
        [ [ '--expires', 'soon' ], qr/invalid --expires "soon"/ ],
        [ [ '--expires', '10' ], qr/invalid --expires/ ],
        [ [ '--expires', '10x' ], qr/invalid --expires/ ],
        [ [ '--expires', '2021-02-29T00:00:00Z' ], qr/invalid --expires/ ],
        [ [ '--expires', '2030-01-01T00:00:00' ], qr/invalid --expires/ ],
        [ [ '--expires', '2030-01-01' ], qr/invalid --expires/ ],
        [ [ '--expires', '2001-01-01T00:00:00Z' ], qr/in the past/ ],
        [ [ '--expires', '99999999y' ], qr/invalid --expires/ ],
        [ [ '--expires', '0' ], qr/in the past/ ],
        [ [ '--not-before', 'now' ], qr/invalid --not-before/ ],
        [ [ '--not-before', '2d', '--expires', '1d' ],
          qr/--not-before is not before/ ],
        [ [ '--no-key' ], qr/expects --id or --identity/ ],
        [ [ '--no-key', '--id', 'q', '--env', 'x' ], qr/--env is of a key/ ],
        [ [ '--no-key', '--id', 'q', '--secret-env', 'x' ],
          qr/--no-key makes none/ ],
        [ [ '--id', 'aigw_x' ], qr/invalid --id: it looks like a key/ ],
        [ [ '--id', 'x' x 129 ], qr/invalid --id: it has from 1 to 128/ ],
        [ [ 'extra' ], qr/unexpected "extra"/ ],
        [ [ '--tennant', 'x' ],
          qr/unknown option "--tennant", did you mean "--tenant"/ ],
        [ [ '--grace', '1h' ], qr/"create" has no option --grace/ ],
        [ [ '--state', 'x' ], qr/"create" has no option --state/ ],
        [ [ '--json=yes' ], qr/--json takes no value/ ],
        [ [ '-x' ], qr/unknown option "-x"/ ],
        [ [ '--file', 'x' ], qr/--file or --data, not both/ ],
    );

usage_like([ 'keys', 'create', map { ('--meta', "$_=" . 'x' x 100_000) }
             qw(a b c) ], qr/the record is too large/, 'large record');
fails_like([ 'keys', 'create', '--id', 'all' ],
           qr/keys\.jsonl:\d+: there is a record with the id .*"all"/,
           'id is taken');
fails_like([ 'keys', 'create', '--id', 'CN=c' ], qr/"CN=c" already/,
           'id is an identity');
fails_like([ 'keys', 'create', '--identity', 'all' ], qr/"all" already/,
           'identity is an id');
fails_like([ 'keys', 'create', '--identity', 'CN=z' ], qr/"CN=z" already/,
           'identity is taken');

is(slurp("$dir/keys.jsonl"), $before, 'none of these wrote anything');

is(AI::Tool::run([ qw(keys create --data /nonexistent/dir) ])->{rc}, 1,
   'no directory');
like(AI::Tool::run([ qw(keys create --data /nonexistent/dir) ])->{err},
     qr{/nonexistent/dir: No such file}, '... message');

# the output must be there before the key is made

is(aigw('keys', 'create', { close => 1 })->{rc}, 1, 'no standard output');
is(slurp("$dir/keys.jsonl"), $before, '... nothing was made');

SKIP: {
    skip 'no /dev/full', 2 unless -e '/dev/full';
    $r = aigw('keys', 'create', { out => '/dev/full' });
    is($r->{rc}, 1, 'the output is full');
    like($r->{err}, qr/its key could not be written.*rotate/, '... message');
}


# where the files are

fresh();
$ENV{AIGW_DATA} = $dir;
is(aigw('keys', 'create', { nodata => 1 })->{rc}, 0, 'AIGW_DATA');
ok(-s "$dir/keys.jsonl", '... file');
delete $ENV{AIGW_DATA};

is(aigw('keys', 'create', '--file', "$dir/other.json", { nodata => 1 })->{rc},
   0, '--file');
ok(-s "$dir/other.json", '... file');

spew("$dir/keys.json", '[]');
fails_like([ qw(keys create) ], qr/keys\.json and .*keys\.jsonl, remove one/,
           'two files');


# list, show

fresh();
spew("$dir/keys.jsonl", <<"END");
{"id":"a","hash":"$hash_a","tenant":"t1","user":"u1","team":"x","plan":"p"}
{"id":"b","hash":"$hash_b","tenant":"t2","expires":1000,"n\\u0061me":"o\\u001bld"}
{"id":"c","tenant":"t1","disabled":true,"limits":{"z":{"requests":1.50e2}}}
{"id":"d","not_before":"2999-01-01T00:00:00Z","identities":["D"]}
{"id":"e"}
{"id":"f","hash":[{"hash":"sha256:@{[ 'c' x 64 ]}","expires":5},
{"hash":"sha256:@{[ 'd' x 64 ]}","disabled":true}]}
END
spew("$dir/revoked.json", '[{"key":"e"},{"jti":"x"},{"key":"a","until":9}]');

$r = decode_json(keys_ok('list', '--json')->{out});
is(join(' ', map { "$_->{id}=$_->{state}" } @$r),
   'a=active b=expired c=disabled d=pending e=revoked f=expired',
   'list: states');
is(join(' ', map { $_->{keys} } @$r), '1 1 0 0 0 2', 'list: number of keys');
is(scalar(grep { exists $_->{hash} } @$r), 0, 'list: no hashes');

for my $case ([ [ '--tenant', 't1' ], 'a c' ], [ [ '--user', 'u1' ], 'a' ],
              [ [ '--team', 'x' ], 'a' ], [ [ '--plan', 'p' ], 'a' ],
              [ [ '--plan', 'q' ], '' ], [ [ '--state', 'expired' ], 'b f' ],
              [ [ '--tenant', 't1', '--state', 'disabled' ], 'c' ])
{
    $r = decode_json(keys_ok('list', '--json', @{ $case->[0] })->{out});
    is(join(' ', map { $_->{id} } @$r), $case->[1], '... ids');
}

$r = keys_ok('list')->{out};
like($r, qr/^ID +STATE +TENANT/, 'list: heading');
like($r, qr/^a +active +t1 +u1 +x +p +never +-$/m, 'list: line');
like($r, qr/1970-01-01T00:16:40Z +o\\x1bld$/m,
     'list: control characters are shown');

usage_like([ qw(keys list --state expird) ], qr/did you mean "expired"/,
           'list: --state');

$r = keys_ok('show', 'c', '--json')->{out};
is($r, '{"state":"disabled","id":"c","tenant":"t1","disabled":true,'
       . '"limits":{"z":{"requests":1.50e2}}}' . "\n", 'show: as it is in the file');

$r = keys_ok('show', 'f')->{out};
like($r, qr/^key: +sha256:c{8}\.\.\., until 1970-01-01T00:00:05Z$/m,
     'show: key');
like($r, qr/^key: +sha256:d{8}\.\.\., disabled$/m, 'show: disabled key');
like(keys_ok('show', 'b')->{out}, qr/^name: +o\\x1bld$/m, 'show: controls');

fails_like([ qw(keys show nobody) ], qr/no record "nobody"/, 'show: unknown');
usage_like([ qw(keys show) ], qr/"show" expects ID/, 'show: no id');
usage_like([ qw(keys show a b) ], qr/unexpected "b"/, 'show: two ids');

fresh();
fails_like([ 'keys', $_->[0], @$_[1 .. $#$_] ], qr/No such file/,
           "$_->[0] without a file")
    for ([ 'list' ], [ 'show', 'x' ], [ 'disable', 'x' ], [ 'rotate', 'x' ],
         [ 'revoke', 'x' ], [ 'update', 'x', '--plan', 'y' ], [ 'check' ]);
ok(!-e "$dir/keys.jsonl", '... none was made');


# verify

fresh();
($key) = keys_ok('create', '--id', 'v')->{out} =~ /(\S+)/;

$r = aigw('keys', 'verify', { in => "$key\n" });
is("$r->{rc} $r->{out}", "0 v active\n", 'verify');
is(aigw('keys', 'verify', { in => "$key\r\n" })->{rc}, 0, '... with CR');
is(aigw('keys', 'verify', { in => $key })->{rc}, 0, '... without LF');

$r = aigw('keys', 'verify', '--json', { in => "$key\n" });
is_deeply(decode_json($r->{out}), { accepted => JSON::PP::true, id => 'v',
                                    state => 'active' }, '... --json');

my ($other) = AI::Tool::run([ qw(keys create --data), fresh() ])->{out}
              =~ /(\S+)/;
$dir = "$top/" . ($dirs - 1);

$r = aigw('keys', 'verify', { in => $other });
is("$r->{rc} $r->{out}", "1 unknown\n", 'verify: unknown');

for my $i (4, 6, 12, 30, length($key) - 1) {
    my $bad = $key;
    substr($bad, $i, 1) = substr($bad, $i, 1) eq 'x' ? 'y' : 'x';
    my $want = $i < 5 ? 'unknown' : 'malformed';
    $r = aigw('keys', 'verify', { in => $bad });
    is("$r->{rc} $r->{out}", "1 $want\n", "verify: byte $i is wrong");
}

$r = aigw('keys', 'verify', { in => "$key\n$key\n" });
is($r->{rc}, 1, 'verify: two lines');
like($r->{err}, qr/more than one line/, '... message');

for my $case ([ '', qr/no key/ ], [ "\n", qr/no key/ ],
              [ 'x' x 513, qr/longer than 512/ ], [ "a b", qr/white space/ ],
              [ "a\x00b", qr/white space/ ], [ "a\xc3\xa4b", qr/white sp/ ])
{
    fails_like([ qw(keys verify) ], $case->[1], 'verify', in => $case->[0]);
}


# disable, enable, update, delete

$r = keys_ok('disable', 'v');
is(state_of($key), 'disabled', 'disabled');
$before = slurp("$dir/keys.jsonl");
keys_ok('disable', 'v');
is(slurp("$dir/keys.jsonl"), $before, '... once is enough');
is(decode_json(keys_ok('enable', 'v', '--json')->{out})->{state}, 'enabled',
   'enabled');
is(state_of($key), 'active', '... active');

keys_ok('update', 'v', '--plan', 'gold', '--scope', 'a,b', '--expires', '1h',
        '--meta', 'x=1');
$rec = record('v');
is("$rec->{plan} @{ $rec->{scopes} } $rec->{metadata}{x}", 'gold a b 1',
   'update: set');
is($rec->{hash}, 'sha256:' . sha256_hex($key), 'update: the rest stays');

keys_ok('update', 'v', '--plan', 'silver', '--clear', 'scopes,expires',
        '--clear', 'metadata');
is_deeply([ sort keys %{ record('v') } ], [ qw(created hash id plan) ],
          'update: cleared');
is(record('v')->{plan}, 'silver', 'update: replaced');

usage_like([ qw(keys update v) ], qr/nothing to update/, 'update: nothing');
usage_like([ qw(keys update v --clear plans) ], qr/did you mean "plan"/,
           'update: no such member');
usage_like([ qw(keys update v --clear hash) ], qr/no member "hash"/,
           'update: not the hash');
usage_like([ qw(keys update v --clear plan --plan x) ],
           qr/"plan" is set and cleared/, 'update: both');
keys_ok('create', '--id', 'w', '--identity', 'W');
fails_like([ qw(keys update v --identity W) ], qr/"W" already/,
           'update: identity is taken');
keys_ok('update', 'w', '--identity', 'W', '--identity', 'W2');
fails_like([ qw(keys update x --plan y) ], qr/no record "x"/,
           'update: unknown');

$r = keys_ok('delete', 'v', '--json');
is(decode_json($r->{out})->{state}, 'deleted', 'delete');
is(state_of($key), 'unknown', '... unknown now');
is(join(' ', map { $_->{id} } records()), 'w', '... the other is there');
fails_like([ qw(keys delete v) ], qr/no record "v"/, 'delete: again');
keys_ok('delete', 'w');
is(slurp("$dir/keys.jsonl"), '', 'the last one leaves an empty file');
is(aigw('check')->{rc}, 0, '... which is good');


# rotate

fresh();
($key) = keys_ok('create', '--id', 'k_rotate01')->{out} =~ /(\S+)/;
$r = decode_json(keys_ok('rotate', 'k_rotate01', '--json')->{out});
my $second = $r->{key};
is(well_formed($second, 'live'), 'rotate01', 'rotate: same public part');
isnt($second, $key, '... another secret');

$rec = record('k_rotate01');
is($rec->{hash}[0], 'sha256:' . sha256_hex($second), '... its hash is first');
is($rec->{hash}[1]{hash}, 'sha256:' . sha256_hex($key), '... then the old');
is($rec->{hash}[1]{expires}, $r->{old_expires}, '... which expires');

($y, $mo, $d, $h, $mi, $s) = $r->{old_expires} =~ /(\d+)/g;
$left = Time::Local::timegm($s, $mi, $h, $d, $mo - 1, $y) - time;
ok($left > 86400 - 60 && $left <= 86400, '... in 24 hours');

is(state_of($_), 'active', '... both are good') for $key, $second;

($other) = keys_ok('rotate', 'k_rotate01', '--grace', '1s', '--env', 'prod',
                   '--expires', '90d')->{out} =~ /(\S+)/;
ok(well_formed($other, 'prod'), 'rotate: --env');
is(scalar @{ record('k_rotate01')->{hash} }, 3, '... three keys');
ok(record('k_rotate01')->{hash}[0]{expires}, 'rotate: --expires');
sleep 2.1;
is(state_of($_), 'expired', '... old ones expire') for $key, $second;
is(state_of($other), 'active', '... the new one is good');

keys_ok('rotate', 'k_rotate01');
is(scalar @{ record('k_rotate01')->{hash} }, 2, '... expired ones are gone');

($key) = keys_ok('rotate', 'k_rotate01', '--grace', '0')->{out} =~ /(\S+)/;
is(record('k_rotate01')->{hash}, 'sha256:' . sha256_hex($key),
   'rotate: --grace 0');
is(state_of($other), 'unknown', '... the old one is refused at once');

keys_ok('create', '--id', 'nk', '--no-key');
($key) = keys_ok('rotate', 'nk')->{out} =~ /(\S+)/;
is(state_of($key), 'active', 'rotate: a first key');

spew("$dir/secret", 'x' x 16);
($key) = keys_ok('rotate', 'nk', '--secret-file', "$dir/secret")->{out}
         =~ /(\S+)/;
is(record('nk')->{hash}[0], 'hmac-sha256:' . hmac_sha256_hex($key, 'x' x 16),
   'rotate: --secret-file');

keys_ok('rotate', 'nk', '-q') for 1 .. 13;
is(scalar @{ record('nk')->{hash} }, 15, 'many keys');
keys_ok('rotate', 'nk', '-q');
fails_like([ qw(keys rotate nk) ], qr/nk has 16 keys .*shorter --grace/,
           'rotate: too many');
keys_ok('rotate', 'nk', '-q', '--grace', '0');

keys_ok('disable', 'nk');
like(keys_ok('rotate', 'nk')->{err}, qr/warning: nk is disabled/,
     'rotate: of a disabled record');

$before = slurp("$dir/keys.jsonl");
usage_like([ qw(keys rotate nk --grace 5) ], qr/invalid --grace/,
           'rotate: --grace');
usage_like([ qw(keys rotate nk --expires 0) ], qr/in the past/,
           'rotate: --expires');
usage_like([ qw(keys rotate nk --env A) ], qr/invalid --env/,
           'rotate: --env');
fails_like([ qw(keys rotate none) ], qr/no record "none"/, 'rotate: unknown');
is(slurp("$dir/keys.jsonl"), $before, '... nothing was written');


# revoke

fresh();
($key) = keys_ok('create', '--id', 'r1')->{out} =~ /(\S+)/;
keys_ok('create', '--id', 'r2');
$r = keys_ok('revoke', 'r1', '--comment', 'leaked', '--until', '1w', '--json');
is(decode_json($r->{out})->{state}, 'revoked', 'revoke');

my $entry = decode_json(slurp("$dir/revoked.jsonl"));
like(delete $entry->{until}, qr/^20/, '... until');
is_deeply($entry, { key => 'r1', comment => 'leaked' }, '... entry');
is(record('r1')->{disabled}, JSON::PP::true, '... and disabled');
is(state_of($key), 'revoked', '... verify');

keys_ok('revoke', 'r1');
is((slurp("$dir/revoked.jsonl") =~ tr/\n//), 1, '... once is enough');

fails_like([ qw(keys enable r1) ], qr/r1 is revoked, use --unrevoke/,
           'enable of a revoked key');
fails_like([ qw(keys rotate r1) ], qr/r1 is revoked/,
           'rotate of a revoked key');
keys_ok('revoke', 'r2');
keys_ok('enable', 'r1', '--unrevoke');
is(state_of($key), 'active', '--unrevoke');
is(slurp("$dir/revoked.jsonl"), "{\"key\":\"r2\"}\n", '... the other stays');

keys_ok('delete', 'r2');
is(slurp("$dir/revoked.jsonl"), "{\"key\":\"r2\"}\n", 'delete keeps it');
fails_like([ qw(keys create --id r2) ], qr/"r2" is on the list of revoked/,
           'a revoked id is not used again');

usage_like([ qw(keys revoke r1 --until 0) ], qr/in the past/,
           'revoke: --until');
fails_like([ qw(keys revoke r3) ], qr/no record "r3"/, 'revoke: unknown');

spew("$dir/revoked.jsonl", "{\"key\":\"r2\"}\n{\"kee\":\"x\"}\n");
$before = slurp("$dir/keys.jsonl");
fails_like([ 'keys', @$_ ],
           qr/revoked\.jsonl:2: unknown member "kee", did you mean "key"/,
           "bad list of revoked keys: $_->[0]", in => $key)
    for ([ 'revoke', 'r1' ], [ 'verify' ], [ 'list' ], [ 'create' ]);
is(slurp("$dir/keys.jsonl"), $before, '... nothing was written');


# import-hash

($key) = AI::Tool::run([ qw(keys create -q --data), fresh() ])->{out}
         =~ /(\S+)/;
fresh();

$r = aigw(qw(keys import-hash --id own), { in => "$key\n" });
is("$r->{rc} $r->{out}", "0 own\n", 'import-hash: a key of ours');
is(state_of($key), 'active', '... verified');
ok(!exists record('own')->{foreign}, '... not foreign');

$r = aigw(qw(keys import-hash --foreign --id theirs --tenant t --json),
          { in => "sk-abcdefghijklmnopqrstuvwxyz\n" });
is($r->{rc}, 0, 'import-hash: foreign') or diag($r->{err});
is(decode_json($r->{out})->{id}, 'theirs', '... --json');
is(record('theirs')->{foreign}, JSON::PP::true, '... marked');
is(record('theirs')->{hash},
   'sha256:' . sha256_hex('sk-abcdefghijklmnopqrstuvwxyz'), '... hash');
is(record('theirs')->{tenant}, 't', '... tenant');
is(state_of('sk-abcdefghijklmnopqrstuvwxyz'), 'active', '... verified');
unlike($r->{err}, qr/sk-abc/, '... not in messages');

is(aigw('keys', 'import-hash', '--hash', $hash_a, '--id', 'h')->{rc}, 0,
   'import-hash: --hash');
is(record('h')->{hash}, $hash_a, '... hash');

like(aigw(qw(keys import-hash --foreign), { in => 'short' })->{err},
     qr/warning: a short key can be found/, 'import-hash: short');

for my $case (
    [ [], "sk-other-0123456789-0123456789", 2, qr/with --foreign only/ ],
    [ [ '--foreign' ], $key, 2, qr/this one is/ ],
    [ [ '--foreign' ], 'aigw_live_x', 1, qr/nginx would never take it/ ],
    [ [], substr($key, 0, -1) . '!', 1, qr/nginx would never take it/ ],
    [ [], $key, 1, qr/the record "own" has this key already/ ],
    [ [ '--hash', uc($hash_a) ], '', 2, qr/invalid --hash/ ],
    [ [ '--hash', 'sha256:' . 'A' x 64 ], '', 1, qr/has this key already/ ],
    [ [ '--hash', 'md5:12' ], '', 2, qr/invalid --hash/ ],
    [ [ '--hash', $hash_b, '--secret-env', 'X' ], '', 2, qr/is complete/ ],
    [ [ '--env', 'x' ], '', 2, qr/no option --env/ ],
)
{
    $r = aigw(qw(keys import-hash), @{ $case->[0] }, { in => $case->[1] });
    is($r->{rc}, $case->[2], "import-hash @{ $case->[0] }");
    like($r->{err}, $case->[3], '... message');
}

spew("$dir/secret", "s3cret s3cret s3cret\n");
$r = aigw(qw(keys import-hash --foreign --id hm --secret-file),
          "$dir/secret", { in => 'short' });
is($r->{rc}, 0, 'import-hash: HMAC');
is(record('hm')->{hash}, 'hmac-sha256:' . hmac_sha256_hex('short', 's3cret s3cret s3cret'),
   '... hash');
unlike($r->{err}, qr/warning/, '... no warning then');


# forms of files: everything but the record stays

my %forms = (
    'lines' => [ 'keys.jsonl', qq({"id":"a","x":1}\n  {"id":"b"}  \n\n)
                               . qq({"id":"c"}) ],
    'lines without white space' => [ 'keys.jsonl', '{"id":"a","x":1}'
                                     . '{"id":"b"}{"id":"c"}' ],
    'CRLF' => [ 'keys.jsonl', qq({"id":"a","x":1}\r\n{"id":"b"}\r\n)
                              . qq({"id":"c"}\r\n) ],
    'sequence' => [ 'keys.json', qq({\n  "id": "a",\n  "x": 1\n}\n)
                    . qq({\n  "id": "b"\n}\n{\n  "id" :\t"c"\n}\n) ],
    'array' => [ 'keys.json', qq([\n  {"id":"a","x":1},\n  {"id":"b"},\n)
                              . qq(  {"id":"c"}\n]\n) ],
    'array in a line' => [ 'keys.json', '[{"id":"a","x":1},{"id":"b"}, '
                                        . '{"id":"c"}]' ],
    'object' => [ 'keys.json', qq( { "keys" : [\n\t{"id":"a","x":1}\n)
                  . qq(\t,{"id":"b"},{"id":"c"} ] }\n\n) ],
    'with BOM' => [ 'keys.json', qq(\xef\xbb\xbf[{"id":"a","x":1},)
                                 . qq({"id":"b"},\n{"id":"c"}]) ],
);

for my $name (sort keys %forms) {
    my ($file, $text) = @{ $forms{$name} };
    $text =~ s/"x"( ?):( ?)1/"comment"$1:$2\[1e400, 0.10, "\\u00e9"]/;

    for my $id (qw(a b c)) {
        fresh();
        spew("$dir/$file", $text);

        my $other = join '|', grep { $_ ne $id } qw(a b c);
        my ($mine) = grep { /"$id"/ } $text =~ /(\{[^{}]*"id"[^{}]*\})/g;

        keys_ok('disable', $id);
        my $now = slurp("$dir/$file");
        my ($new) = $now =~ /(\{[^{}]*"$id"[^{}]*true[^{}]*\})/;
        my $want = $text;
        substr($want, index($want, $mine), length $mine) = $new;
        is($now, $want, "$name: only $id is changed");
        like($new, qr/1e400, 0\.10, "\\u00e9"/, '... other members as well')
            if $id eq 'a';

        keys_ok('enable', $id);
        is(slurp("$dir/$file"), $text, "$name: as it was");

        keys_ok('delete', $id);
        $r = aigw('keys', 'list', '--json');
        is(join('|', map { $_->{id} } @{ decode_json($r->{out}) }), $other,
           "$name: $id is deleted");

        my $left = slurp("$dir/$file");
        for my $o (split /\|/, $other) {
            my ($theirs) = grep { /"$o"/ }
                           $text =~ /(\{[^{}]*"id"[^{}]*\})/g;
            ok(index($left, $theirs) >= 0, "... $o is as it was");
        }
    }

    fresh();
    spew("$dir/$file", $text);
    keys_ok('create', '--id', 'new');
    my $now = slurp("$dir/$file");
    my @ids = map { $_->{id} }
              @{ decode_json(aigw(qw(keys list --json))->{out}) };
    is("@ids", 'a b c new', "$name: created");

    my $cut = $now;
    $cut =~ s/[\s,]*\{[^{}]*"id":"new"[^{}]*\}//;
    my $want = $text;
    s/\s+$// for $cut, $want;
    is($cut, $want, '... the rest is as it was');

    keys_ok('delete', 'new');
    $now = slurp("$dir/$file");
    (my $trimmed = $text) =~ s/\n?$//;
    is(($now =~ s/\n?$//r), $trimmed, '... and again');

    # the last one

    keys_ok('delete', $_) for qw(b a c);
    is(decode_json(aigw(qw(keys list --json))->{out})->[0], undef,
       "$name: none are left");
    is(aigw('check')->{rc}, 0, '... the file is good');
    keys_ok('create', '--id', 'again');
    is(decode_json(aigw(qw(keys list --json))->{out})->[0]{id}, 'again',
       '... and one is there again');
}

fresh();
spew("$dir/keys.json", $_) and keys_ok('create', '--id', 'x')
    and is(aigw('check')->{rc}, 0, "one in \"$_\"")
    for '[]', "[ \n ]\n", '{"keys":[]}', ' ';


# members and escapes

fresh();
spew("$dir/keys.jsonl",
     qq({"\\u0069d":"\\u0061","dis\\u0061bled":true}\n{"id":"b\\\\/"}\n)
     . qq({"comment":"\\"id\\":\\"z\\"","id":"d"}\n));
keys_ok('enable', 'a');
like(slurp("$dir/keys.jsonl"), qr/^\{"\\u0069d":"\\u0061"\}$/m,
     'escapes in names');
fails_like([ qw(keys show z) ], qr/no record/, 'an id in a text is none');
keys_ok('disable', 'd');


# check

my @good = (
    qq({"id":"a"}), qq({"id":"a","hash":"sha256:@{[ 'A' x 64 ]}"}),
    qq({"id":"a","hash":[{"hash":"$hash_a","comment":"\\u0031"}]}),
    qq({"id":"a","tenant":null,"user":"","limits":null,"expires":null}),
    qq({"id":"a","identities":["a","b"],"expires":"2030-01-01 00:00:00Z"}),
    qq({"id":"a","scopes":"x y"}),
    qq({"id":"a","scopes":[]}), qq({"id":"a","expires":1893456000}),
    qq({"id":"a","expires":"2030-01-01T00:00:00.5+01:00"}),
    qq({"id":"a","name":1,"created":[],"comment":{"x":1}}),
    qq({"id":"a","metadata":{"x":{"y":[1]}}}),
    qq({"id":"a","limits":{"z":{}},"quotas":{}}),
    qq({"id":"a","foreign":false,"disabled":false}),
    qq({"id":"a","tenant":"\\ud83d\\ude00"}),
);

my @bad = (
    [ '{}', qr/there is no "id"/ ],
    [ '{"id":1}', qr/"id" is a number, it must be a string/ ],
    [ '{"id":""}', qr/invalid "id"/ ],
    [ '{"id":"a","modles":[]}', qr/unknown member "modles", did you mean "models"/ ],
    [ '{"id":"a","zzz":[]}', qr/unknown member "zzz"$/m ],
    [ '{"id":"a","id":"a"}', qr/duplicate member "id"/ ],
    [ '{"id":"a","hash":"sha256:12"}', qr/invalid hash/ ],
    [ '{"id":"a","hash":1}', qr/"hash" is a number, it must be a string/ ],
    [ '{"id":"a","hash":[1]}', qr/a hash is a number/ ],
    [ '{"id":"a","hash":[{}]}', qr/without "hash"/ ],
    [ qq({"id":"a","hash":{"hash":"$hash_a"}}), qr/"hash" is an object/ ],
    [ '{"id":"a","hash":"\u0073ha256:' . 'a' x 64 . '"}', qr/escapes in a/ ],
    [ '{"id":"a","hash":[{"hash":"\u0073ha256:' . 'a' x 64 . '"}]}',
      qr/escapes in a hash/ ],
    [ qq({"id":"a","hash":[{"hash":"$hash_a","expire":1}]}),
      qr/unknown member "expire" of a hash, did you mean "expires"/ ],
    [ qq({"id":"a","hash":[{"hash":"$hash_a","disabled":1}]}),
      qr/"disabled" is a number/ ],
    [ '{"id":"a","tenant":[]}', qr/"tenant" is an array/ ],
    [ '{"id":"aigw_x"}', qr/looks like a key/ ],
    [ '{"id":"a","hash":[]}', qr/has 0 items, it must have from 1 to 16/ ],
    [ '{"id":"a","hash":[' . join(',', map { sprintf '"sha256:%064x"', $_ }
                                       1 .. 17) . ']}', qr/has 17 items/ ],
    [ '{"id":"a","models":null}', qr/"models" is null/ ],
    [ '{"id":"a","disabled":null}', qr/"disabled" is null/ ],
    [ '{"id":"a","identities":["x","x"]}', qr/identity "x" is there twice/ ],
    [ '{"id":"a","identities":[' . join(',', map { "\"i$_\"" } 1 .. 65)
      . ']}', qr/more than 64/ ],
    [ '{"id":"a","expires":0}', qr/invalid "expires"/ ],
    [ '{"id":"a","expires":1893456000000}', qr/invalid "expires"/ ],
    [ '{"id":"a","tenant":"\u0007"}', qr/control character in "tenant"/ ],
    [ '{"id":"a","models":"gpt"}', qr/"models" is a string.*array/ ],
    [ '{"id":"a","models":[1]}', qr/item of "models" is a number/ ],
    [ '{"id":"a","deny":[""]}', qr/item of "deny" is empty/ ],
    [ '{"id":"a","endpoints":["chta"]}', qr/unknown endpoint "chta", did you mean "chat"/ ],
    [ '{"id":"a","limits":[]}', qr/"limits" is an array/ ],
    [ '{"id":"a","limits":{"z":1}}', qr/"z" of "limits" is a number/ ],
    [ '{"id":"a","limits":{"z":{"n":1}}}',
      qr/"limits" of zone "z": unknown "n"/ ],
    [ '{"id":"a","quotas":{"z":{"usd":"5/s"}}}',
      qr/"quotas" of zone "z": invalid "usd": "5\/s": a quota is per m, hour/ ],
    [ '{"id":"a","quotas":{"z":{"usd":true}}}',
      qr/"quotas" of zone "z": "usd" is .*, it must be a string/ ],
    [ '{"id":"a","metadata":"x"}', qr/"metadata" is a string/ ],
    [ '{"id":"a","disabled":"yes"}', qr/"disabled" is a string/ ],
    [ '{"id":"a","foreign":1}', qr/"foreign" is a number/ ],
    [ '{"id":"a","expires":"tomorrow"}', qr/invalid "expires"/ ],
    [ '{"id":"a","expires":-1}', qr/invalid "expires"/ ],
    [ '{"id":"a","not_before":true}', qr/"not_before" is a boolean/ ],
    [ '{"id":"a",}', qr/expected a member name/ ],
    [ '{"id":"a" "b":1}', qr/expected "," or "}"/ ],
    [ '{"id":"a\q"}', qr/invalid escape/ ],
    [ '{"id":"a\u0000"}', qr/null character/ ],
    [ '{"id":"\ud800"}', qr/lone surrogate/ ],
    [ "{\"id\":\"a\tb\"}", qr/control character in a string/ ],
    [ "{\"id\":\"\xff\"}", qr/invalid UTF-8/ ],
    [ '{"id":"a","comment":01}', qr/invalid number/ ],
    [ '{"id":"a","comment":1.}', qr/invalid number/ ],
    [ '{"id":"a","comment":+1}', qr/invalid value/ ],
    [ '{"id":"a","comment":nul}', qr/invalid value/ ],
    [ '{"id":"a"', qr/unexpected end/ ],
    [ '{"id":"a","comment":' . '[' x 200, qr/nesting is too deep/ ],
    [ '"a"', qr/a record is an object/ ],
    [ '{"id":"a","comment":"' . 'x' x 262144 . '"}', qr/too large/ ],
    [ '{"id":"q0"}', qr/"q0" is that of record 1, too/ ],
    [ '{"id":"a","identities":["q0"]}', qr/"q0" is that of record 1/ ],
    [ '{"id":"a","identities":["Q"]}', qr/"Q" is that of record 1/ ],
    [ qq({"id":"a","hash":"sha256:@{[ 'E' x 64 ]}"}),
      qr/its hash is that of record 1/ ],
);

my $first = qq({"id":"q0","identities":["Q"],"hash":"sha256:@{[ 'e' x 64 ]}"});

fresh();

for (@good) {
    spew("$dir/keys.jsonl", "$first\n$_\n");
    $r = aigw('check');
    is("$r->{rc} $r->{err}", "0 aigw: $dir/keys.jsonl: 2 records, good\n",
       "check: $_");
}

for (@bad) {
    my ($text, $re) = @$_;
    my $name = substr $text, 0, 50;

    spew("$dir/keys.jsonl", "$first\n$text\n");
    $r = aigw('check');
    is($r->{rc}, 1, "check: $name");
    like($r->{err}, $re, '... message');
    like($r->{err}, qr{^\Q$dir\E/keys\.jsonl:[23]: }, '... file and line');
}

for my $case (
    [ '[{"id":"a"}', qr/:1: unexpected end/ ],
    [ '[{"id":"a"},]', qr/expected "\{"/ ],
    [ '[{"id":"a"} {"id":"b"}]', qr/expected "," or "\]"/ ],
    [ "[{\"id\":\"a\"}]\nx", qr/:2: unexpected data after the end/ ],
    [ '{"keys":[{"id":"a"}],"x":1}', qr/no other members/ ],
    [ '{"keys":[{"id":"a"}]', qr/unexpected end/ ],
    [ '', qr/the file is empty/ ],
)
{
    fresh();
    spew("$dir/keys.json", $case->[0]);
    fails_like([ 'check' ], $case->[1], "check: $case->[0]");
}

fresh();
spew("$dir/keys.jsonl", "{\"id\":\"a\"}\n{\"id\":\"b\",}\n{\"id\":\"c\"}\n"
                        . "{\"id\":1}\n");
$r = aigw('check');
is(join(' ', $r->{err} =~ /jsonl:(\d+)/g), '2 4', 'check: all errors');

$r = aigw('check', '--json');
my $json = decode_json($r->{out});
is("$r->{rc} " . join(' ', map { $_->{line} } @{ $json->{errors} }), '1 2 4',
   'check: --json');
is($r->{err}, '', '... nothing else');

spew("$dir/keys.jsonl", "{\"id\":\"a\"}\n");
spew("$dir/revoked.json", $_->[0])
    and fails_like([ 'keys', 'check' ], $_->[1], "check: revoked $_->[0]")
    for (
        [ '[{}]', qr/revoked\.json:1: an entry has one of/ ],
        [ '[{"key":"a","jti":"b"}]', qr/an entry has one of/ ],
        [ '[{"key":1}]', qr/"key" is a number/ ],
        [ '[{"sub":""}]', qr/"sub" is empty/ ],
        [ '[{"key":"aigw_live_x"}]', qr/not the key itself/ ],
        [ '[{"key":"a\u0001"}]', qr/control character in "key"/ ],
        [ '{"key":"a"}' x 65, qr/more than 64 entries/ ],
        [ '[{"key":"a","issuer":"b"}]', qr/"issuer" is of tokens/ ],
        [ '[{"key":"a","until":"x"}]', qr/invalid "until"/ ],
        [ "[{\"key\":\"a\"},\n{\"sbu\":\"a\"}]", qr/:2: .*did you mean "sub"/ ],
    );

spew("$dir/revoked.json", '{"revoked":[{"jti":"a","issuer":"b","comment":1},'
                          . '{"sub":"c","until":5}]}');
is_deeply(decode_json(aigw('check', '--json')->{out}),
          { keys => 1, revoked => 2, prices => 0, switches => 0,
            errors => [] }, 'check: both are good');

is(AI::Tool::run([ 'check', $dir ])->{rc}, 0, 'check DIR');
is(AI::Tool::run([ 'keys', 'check', $dir ])->{rc}, 0, 'keys check DIR');
is(AI::Tool::run([ 'check', $dir, '--data', $dir ])->{rc}, 2,
   'check: two directories');
is(AI::Tool::run([ 'check', '--file', "$dir/keys.jsonl" ])->{rc}, 0,
   'check: --file');

# prices and switches

spew("$dir/prices.json", '[{"model":"a","input":1,"output":2}]');
spew("$dir/switches.json", '[{"scope":"all","action":"deny","text":"x"},'
     . '{"scope":"key","name":"k","action":"reroute","model":"m"},'
     . '{"scope":"feature","name":"tools","action":"drain","status":503},'
     . '{"scope":"zone","name":"z","key":"k","raise":{"requests":"9/s",'
     . '"concurrent":5},"until":"2030-01-31T00:00:00Z","comment":[]},'
     . '{"scope":"zone","name":"q","key":"k","raise":{"usd":"5/month"}}]');
$r = aigw('check', '--json');
is_deeply(decode_json($r->{out}), { keys => 1, revoked => 2, prices => 1,
    switches => 5, errors => [] }, 'check: prices and switches are good');

for my $case (
    [ 'prices', '{"model":"a","input":1}', 'record "a": no "output"' ],
    [ 'prices', '{"input":1,"output":1}', 'record "?": no "model"' ],
    [ 'prices', '{"model":"a","input":1,"outptu":1}',
      'record "a": unknown member "outptu", did you mean "output"?' ],
    [ 'prices', '{"model":"a","input":1,"output":1}' x 2,
      'record "a": it is record 1, too' ],
    [ 'prices', '[{"model":"a"', 'unexpected end' ],
    [ 'switches', '{"scope":"al"}', 'record "al": unknown scope "al", did yo' ],
    [ 'switches', '{"name":"x"}', 'no "scope"' ],
    [ 'switches', '{"scope":"key"}', 'record "key": no "name"' ],
    [ 'switches', '{"scope":"all"}', 'record "all": no "action"' ],
    [ 'switches', '{"scope":"all","action":"dney"}',
      'unknown action "dney", did you mean "deny"?' ],
    [ 'switches', '{"scope":"all","name":"x","action":"deny"}',
      'record "all:x": "name" is of no use here' ],
    [ 'switches', '{"scope":"all","action":"deny","actoin":1}',
      'unknown member "actoin", did you mean "action"?' ],
    [ 'switches', '{"scope":"all","action":"deny","model":"x"}',
      '"model" is of no use here' ],
    [ 'switches', '{"scope":"all","action":"deny","text":""}',
      '"text" is empty' ],
    [ 'switches', '{"scope":"all","action":"deny","text":5}',
      '"text" must be a string' ],
    [ 'switches', '{"scope":"all","action":"deny","status":200}',
      '"status" must be a number from 400 to 599' ],
    [ 'switches', '{"scope":"all","action":"deny","until":"soon"}',
      'invalid "until"' ],
    [ 'switches', '{"scope":"all","action":"deny","scope":"all"}',
      'duplicate member "scope"' ],
    [ 'switches', '{"scope":"all","action":"reroute"}',
      'no "model" to reroute to' ],
    [ 'switches', '{"scope":"provider","name":"x","action":"reroute",'
      . '"model":"m"}', 'a provider is not rerouted' ],
    [ 'switches', '{"scope":"feature","name":"tool","action":"deny"}',
      'unknown feature "tool", did you mean "tools"?' ],
    [ 'switches', '{"scope":"zone","name":"z","key":"k"}',
      'record "zone:z:k": no "raise"' ],
    [ 'switches', '{"scope":"zone","name":"z","raise":{}}', 'no "key"' ],
    [ 'switches', '{"scope":"zone","name":"z","key":"k","raise":{"usb":1}}',
      '"raise" of zone "z": unknown "usb"' ],
    [ 'switches', '{"scope":"zone","name":"z","key":"k","raise":{"usd":"x"}}',
      '"raise" of zone "z": invalid "usd": "x": it is not a number' ],
    [ 'switches', '{"scope":"zone","name":"z","key":"k","raise":{"usd":null}}',
      '"usd" must be a string' ],
    [ 'switches', '{"scope":"all","action":"deny"}' x 2,
      'record "all": it is record 1, too' ],
)
{
    my ($file, $text, $expected) = @$case;
    my $good = slurp("$dir/$file.json");

    spew("$dir/$file.json", $text);
    fails_like([ 'check' ],
               qr{\Q$dir\E/$file\.json:1: (record "[^"]*": )?.*\Q$expected\E}s,
               "check: $file: $expected");
    spew("$dir/$file.json", $good);
}

rename "$dir/keys.jsonl", "$dir/aside";
is(aigw('check')->{rc}, 0, 'check: no keys, but prices');
unlink "$dir/prices.json", "$dir/switches.json";
is(aigw('check')->{rc}, 1, 'check: nothing of it');
rename "$dir/aside", "$dir/keys.jsonl";

# a change of a file that nginx does not take

spew("$dir/keys.jsonl", "{\"id\":\"a\"}\n{\"id\":\"b\",\"modles\":[]}\n");
$r = keys_ok('disable', 'a');
like($r->{err}, qr/warning: .*:2: record "b".*keeps nginx from taking/,
     'a bad record elsewhere is told');
fails_like([ qw(keys disable b) ], qr/:2: record "b": unknown member/,
           'a bad record is not changed');
is(aigw(qw(keys list))->{rc}, 1, 'list: a bad record');
keys_ok('delete', 'b');

spew("$dir/keys.jsonl", "{\"id\":\"a\"}\n{\"id\":\"b\",\"name\":\"\xff\"}\n"
                        . "{\"id\":\"c\",\"name\":\"\\ud800\\u0000\"}\n");
keys_ok('revoke', 'a');
like(slurp("$dir/keys.jsonl"), qr/"b","name":"\xff"/,
     'texts that are not UTF-8 elsewhere are no obstacle');

spew("$dir/keys.jsonl", "{\"id\":\"a\"}\n{\"id\":\"b\",}\n");
fails_like([ qw(keys disable a) ], qr/keys\.jsonl:2: expected a member name/,
           'a broken file is not changed');


# modes, links, locks

fresh();
mkdir "$dir/real";
spew("$dir/real/keys.json", "[]\n");
chmod 0604, "$dir/real/keys.json";
symlink 'real', "$dir/..data";
symlink '..data/keys.json', "$dir/keys.json";
keys_ok('create', '--id', 's');
ok(-l "$dir/keys.json", 'a link stays a link');
like(slurp("$dir/real/keys.json"), qr/"id":"s"/, '... its target is changed');
is((stat "$dir/real/keys.json")[2] & 07777, 0604, '... mode is kept');

unlink "$dir/keys.json";
symlink 'nowhere', "$dir/keys.json";
fails_like([ qw(keys create) ], qr/symbolic link to a file that is not/,
           'a link to nowhere');

SKIP: {
    skip 'needs root', 4 if $>;

    fresh();
    chown 0, 12345, $dir;
    keys_ok('create', '--id', 'g');
    is((stat "$dir/keys.jsonl")[5], 12345, 'group of the directory');
    chown 12346, 12347, "$dir/keys.jsonl";
    keys_ok('create');
    is(join(' ', (stat "$dir/keys.jsonl")[4, 5]), '12346 12347',
       'owner is kept');
}

fresh();
spew("$dir/keys.jsonl", '');
symlink "$top/elsewhere", "$dir/.keys.jsonl.aigw";
keys_ok('create');
ok(!-e "$top/elsewhere", 'a link in the place of the temporary file');
unlink "$dir/.aigw.lock";
symlink "$top/elsewhere", "$dir/.aigw.lock";
fails_like([ qw(keys create) ], qr/cannot open .*\.aigw\.lock/,
           'a link in the place of the lock');
ok(!-e "$top/elsewhere", '... it is not followed');

fresh();
mkdir "$dir/keys.json";
fails_like([ qw(keys create) ], qr/not a regular file/, 'a directory');


# several at once lose nothing

fresh();
spew("$dir/keys.json", "{\"keys\":[]}\n");

my @pids;

for (1 .. 8) {
    my $pid = fork // die "fork: $!";

    if ($pid == 0) {
        for (1 .. 5) {
            POSIX::_exit(1) if aigw(qw(keys create -q))->{rc};
        }

        POSIX::_exit(0);
    }

    push @pids, $pid;
}

my $failed = 0;
waitpid($_, 0) and $failed += $? != 0 for @pids;
is($failed, 0, 'parallel creates');
$r = decode_json(aigw(qw(keys list --json))->{out});
is(scalar @$r, 40, '... none is lost');


# kill -9 at any moment leaves the old file or the new one

fresh();

{
    open my $f, '>', "$dir/keys.jsonl" or die;
    printf $f '{"id":"k_%08d","hash":"sha256:%064x","tenant":"t%d"}' . "\n",
           $_, $_, $_ % 100 for 1 .. 100_000;
    close $f;
}

my $old = slurp("$dir/keys.jsonl");
my $took = time;
is(aigw(qw(keys create -q --id base))->{rc}, 0, '100,000 records');
$took = time - $took;

my $kept = 0;
my $made = 0;
my $torn = 0;
$old = slurp("$dir/keys.jsonl");

for my $i (1 .. 20) {
    my $pid = AI::Tool::spawn([ 'keys', 'create', '-q', '--id', "n$i",
                                '--data', $dir ]);
    sleep $took * $i / 18;
    kill 9, $pid;
    waitpid $pid, 0;

    my $new = slurp("$dir/keys.jsonl");

    if ($new eq $old) {
        $kept++;

    } elsif (substr($new, 0, length $old) eq $old
             && substr($new, length $old) =~ /^\{"id":"n$i",[^\n]*\}\n$/)
    {
        $made++;
        $old = $new;

    } else {
        $torn++;
    }
}

is($torn, 0, 'kill -9: never a torn file');
diag("kill -9: $kept times the old file, $made times the new one");
ok($kept, '... some were killed in time');
keys_ok('create', '-q');
is_deeply([ grep { !/^\.\.?$|^keys\.jsonl$|^\.aigw\.lock$/ }
            do { opendir(my $h, $dir); readdir $h } ], [],
          '... what was left is removed');


# a million keys

SKIP: {
    my ($free) = `df -Pk $top` =~ /\s(\d+)\s+\d+%/;
    skip 'not enough space in /tmp', 10 if ($free // 0) < 2_000_000;

    fresh();

    open my $f, '>', "$dir/keys.jsonl" or die;

    # a build with sanitizers is ten times as slow
    my $n = $ENV{ASAN_OPTIONS} ? 100_000 : 1_000_000;

    printf $f '{"id":"k_%08d","hash":"sha256:%064x","tenant":"tenant%d",'
              . '"user":"user%d","plan":"gold","scopes":["chat"],'
              . '"models":["gpt-*"],"created":"2026-01-01T00:00:00Z"}' . "\n",
           $_, $_, $_ % 1000, $_ for 1 .. $n;
    close $f or skip 'no space', 10;

    diag(sprintf '%d keys, %d MB', $n, (-s "$dir/keys.jsonl") >> 20);

    for my $case ([ qw(keys create -q) ],
                  [ qw(keys show -q), sprintf 'k_%08d', $n ],
                  [ qw(keys rotate -q), sprintf 'k_%08d', $n / 2 ],
                  [ qw(keys revoke -q k_00000001) ], [ qw(check -q) ])
    {
        my $t = time;
        $r = aigw(@$case);
        $t = time - $t;
        is($r->{rc}, 0, "a million: @$case");
        diag(sprintf '%-28s %.2f s', "@$case", $t);
        cmp_ok($t, '<', 60, '... in some seconds');
    }
}


# help, version, command line

fresh();

for my $case ([ [ '--help' ], qr/^Usage: aigw keys COMMAND/ ],
              [ [ 'help' ], qr/^Usage: aigw keys COMMAND/ ],
              [ [ 'keys', '--help' ], qr/import-hash .*\n.*list/ ],
              [ [ '-h', 'keys' ], qr/import-hash/ ],
              [ [ 'help', 'keys', 'rotate' ], qr/--grace TIME/ ],
              [ [ 'keys', 'create', '--help' ], qr/--tenant NAME/ ],
              [ [ '--version' ], qr/^aigw \d+\.\d+\.\d+\n$/ ],
              [ [ '-V' ], qr/^aigw \d/ ])
{
    $r = AI::Tool::run($case->[0]);
    is($r->{rc}, 0, "@{ $case->[0] }");
    like($r->{out}, $case->[1], '... output');
    is($r->{err}, '', '... no error');
}

for my $case ([ [], qr/no command/ ], [ [ 'keys' ], qr/no command of "keys"/ ],
              [ [ 'kesy' ], qr/unknown command "kesy", did you mean "keys"/ ],
              [ [ qw(keys crate) ], qr/did you mean "create"/ ],
              [ [ '--nonsense' ], qr/unknown option "--nonsense"/ ],
              [ [ qw(keys list --data) ], qr/--data expects a value/ ],
              [ [ "keys", "a\e[31m" ], qr/"keys a\\x1b\[31m"/ ])
{
    $r = AI::Tool::run($case->[0]);
    is($r->{rc}, 2, "aigw @{ $case->[0] }");
    like($r->{err}, $case->[1], '... message');
}

$r = AI::Tool::run([ '--data', $dir, '--tenant', 't', 'keys', 'create' ]);
is($r->{rc}, 0, 'options before the command');
$r = AI::Tool::run([ '--data', $dir, qw(keys show -- --x) ]);
like($r->{err}, qr/no record "--x"/, 'behind "--" there are no options');

# every option and command is in the manual

my $man = slurp("$FindBin::Bin/../tools/aigw/aigw.1");

for my $name (AI::Tool::run([ qw(keys --help) ])->{out} =~ /^  ([a-z-]+) /mg)
{
    like($man, qr/^\.It Cm keys $name\b/m, "manual: $name");

    my $help = AI::Tool::run([ 'keys', $name, '--help' ])->{out};

    for my $opt ($help =~ /^  --([a-z-]+)/mg) {
        like($man, qr/^\.It (?:Fl \w , )?Fl -\Q$opt\E\b/m,
             "manual: --$opt");
    }
}

umask $umask;

done_testing();
