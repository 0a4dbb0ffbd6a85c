#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Files of live data when the configuration is read: the directive, records of
# keys.json and revoked.json, and what nginx -t says of wrong ones.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use POSIX qw(strftime);
use Test::More;
use Time::HiRes qw(time sleep);

use AI::Gateway;
use AI::Live;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

plan skip_all => 'no ngx_http_ai_auth_module'
    if AI::Gateway::modules()
       && !grep { $_ eq 'ngx_http_ai_auth_module' } AI::Gateway::modules();

my $true = JSON::PP::true;
my $false = JSON::PP::false;
my $h = hash_of(key(1));
my $pepper = "a pepper of some length";

my $gw = keys_gateway(start => 0);
my $data = "$gw->{dir}/data";

# (exit code, text) of nginx -t with these files

sub tested {
    my ($files, %conf) = @_;

    unlink glob("$data/*"), "$gw->{dir}/conf_test.out";
    $gw->write_file("data/$_", $files->{$_}) for keys %$files;
    $gw->write_conf(keys_conf(who => '', server => '', %conf));

    return $gw->conf_test;
}

sub good {
    my ($name, $files, %conf) = @_;
    my ($rc, $text) = tested($files, %conf);

    is("$rc $text", '0 ', $name);
}

sub bad {
    my ($name, $files, $pattern, %conf) = @_;
    my ($rc, $text) = tested($files, %conf);

    ok($rc == 1 && $text =~ /\[emerg\].*?$pattern/, $name) or diag($text);

    return $text;
}

my $keys = { 'keys.json' => json([ record(1) ]) };

# the directive

good('ai_data', $keys);
good('... all parameters', $keys,
     ai_data => '%%DIR%%/data interval=50ms size=1m');
good('... relative to the configuration', $keys, ai_data => 'data/');
bad('... duplicate', $keys, qr/"ai_data" directive is duplicate in .*:\d+/,
    http => 'ai_data %%DIR%%;');
bad('... no directory', $keys, qr/stat\(\) "\S+nowhere" failed .*No such/,
    ai_data => '%%DIR%%/nowhere');
bad('... a file', $keys, qr/"\S+who" is not a directory/,
    ai_data => '%%DIR%%/who');
bad('... empty', $keys, qr/needs a directory/, ai_data => '""');
bad("... interval=$_", $keys,
    qr/invalid interval "$_" of ai_data, it must be from 20ms to 1h/,
    ai_data => "%%DIR%%/data interval=$_") for '10ms', '2h', 'x', '';
bad('... size=x', $keys, qr/invalid size "x" of ai_data/,
    ai_data => '%%DIR%%/data size=x');
bad('... size=8k', $keys, qr/size "8k" of ai_data is too small/,
    ai_data => '%%DIR%%/data size=8k');
bad('... unknown parameter', $keys, qr/invalid parameter "sized=1m" of ai_d/,
    ai_data => '%%DIR%%/data sized=1m');

# files

bad('no file', {}, qr{there is no "\S+keys\.json" and no "keys\.jsonl", }
                   . qr{create one with "aigw keys create --data \S+/data"});
bad('both files', { 'keys.json' => '[]', 'keys.jsonl' => '' },
    qr/both "\S+keys\.json" and "\S+keys\.jsonl" are there, remove one/);
good('.jsonl', { 'keys.jsonl' => lines(record(1), record(2)) });
good('no records', { 'keys.json' => '[]' });
good('no lines', { 'keys.jsonl' => '' });
bad('empty .json', { 'keys.json' => "\n" }, qr/keys\.json: is empty/);

my $r = json(record(1)) =~ s/\n//r;

for my $wrong ([ '[', 1, 'unexpected end of the file, expected "]"' ],
               [ "[\n\n$r", 3, 'unexpected end of the file, expected "]"' ],
               [ "$r,\n$r", 1, '"," between records, which only an array' ],
               [ "[$r,]", 1, 'expected a record, found "]"' ],
               [ "[$r $r]", 1, 'expected "," or "]", found "{"' ],
               [ "[,$r]", 1, 'expected a record, found ","' ],
               [ "[$r]\n]", 2, 'expected the end of the file, found "]"' ],
               [ "[$r]\n$r", 2, 'expected the end of the file, found "{"' ],
               [ "\n[1]", 2, 'expected a record, found "1"' ],
               [ '"x"', 1, 'expected a record or an array of records, found' ],
               [ "\0", 1, 'expected a record or an array of records, found '
                          . 'byte 0x00' ],
               [ "{\"keys\":[$r]", 1, 'unexpected end of the file, ' ],
               [ "{\"keys\":[$r],\"v\":1}", 1, 'expected "}", as there is no' ],
               [ "{\"keyz\":[$r]}", 1, '"id" is missing' ],
               [ "\n\n{\"id\":\"k", 3, 'unexpected end of the file in a rec' ],
               [ "\n{\"id\":\n\n\"k\n\"}", 4, '' ],
               [ "\n{\"id\":\n}\n$r", 3, '' ],
               [ '{"id":"' . 'x' x 300000 . '"}', 1, 'record is longer than' ],
               [ '{"id":' . '[' x 1000 . ']' x 1000 . '}', 1, '' ])
{
    my ($text, $line, $error) = @$wrong;
    my $name = length $text > 60 ? substr($text, 0, 20) . '...' : $text;

    bad($name =~ s/[^ -~]/./gr, { 'keys.json' => $text },
        qr/keys\.json:$line: \Q$error\E/);
}

# records

for my $good ([ 'every member',
    record(1, tenant => 'a', user => 'b', team => 'c', plan => 'd',
           scopes => [ 'x', 'model:gpt-*' ], models => [ 'gpt-*' ],
           deny => [ 'o1' ], providers => [ 'openai' ],
           endpoints => [ qw(chat completions embeddings count_tokens models
                             passthrough) ],
           limits => { rate => { requests => '60r/m' } },
           quotas => { spend => { usd => '100/month' } },
           metadata => { a => { b => [ 1 ] } }, identities => [ 'CN=x' ],
           not_before => 1, expires => '2100-01-01T00:00:00Z',
           disabled => $false, foreign => $false, name => 'n',
           created => 'c', comment => 'd') ],
    [ 'id only', { id => 'k' } ],
    [ 'null is as if it was not there',
      record(1, map { $_ => undef } ()), ],
    [ 'scopes in a string', record(1, scopes => ' a  b ') ],
    [ 'several hashes', record(1, hash => [ $h, {
          hash => hash_of(key(2)), not_before => '2026-01-01T00:00:00Z',
          expires => 4102444800, disabled => $true, comment => 'x' } ]) ],
    [ 'its own id as identity', { id => 'k', identities => [ 'k', 'l' ] } ],
    [ 'HMAC', record(1, hash => hash_of(key(1), $pepper)),
      { http => 'ai_key_secret env:AI_PEPPER;', env => 1 } ])
{
    my ($name, $record, $conf) = @$good;
    my %conf = %{ $conf // {} };

    local $gw->{env} = { AI_PEPPER => $pepper } if delete $conf{env};
    good($name, { 'keys.json' => json([ $record ]) }, %conf);
}

good('null', { 'keys.json' => '{"id":"k","tenant":null,"expires":null,'
               . '"limits":null,"metadata":null,"not_before":null}' });

my @times = ('2027-01-31T00:00:00Z', '2027-01-31t23:59:60z',
             '2028-02-29 12:00:00+05:30', '2027-01-31T00:00:00.123456-08:00');

good("time $_", { 'keys.json' => json([ record(1, expires => $_) ]) })
    for @times, 1800000000, 1.8e9;

for my $wrong (
    [ { modles => [] }, 'unknown member "modles", did you mean "models"?' ],
    [ { Models => [] }, 'unknown member "Models", did you mean "models"?' ],
    [ { qqq => 1 }, 'unknown member "qqq"' ],
    [ { key(9) => 1 }, 'unknown member "(not shown, it is long)"' ],
    [ { hash => 'x' }, '"hash" must be "sha256:" or "hmac-sha256:" and 64' ],
    [ { hash => key(1) }, '"hash" must be "sha256:"' ],
    [ { hash => substr $h, 0, -1 }, '"hash" must be' ],
    [ { hash => substr($h, 0, -1) . 'g' }, '"hash" must be' ],
    [ { hash => "$h " }, '"hash" must be' ],
    [ { hash => 'md5:' . 'a' x 64 }, '"hash" must be' ],
    [ { hash => 1 }, '"hash" must be' ],
    [ { hash => [] }, '"hash" must have from 1 to 16 hashes' ],
    [ { hash => [ map { hash_of($_) } 1 .. 17 ] }, '"hash" must have from' ],
    [ { hash => [ $h, $h ] }, 'its hash is that of another record, or there' ],
    [ { hash => [ {} ] }, '"hash" is missing in an object of "hash"' ],
    [ { hash => [ { hash => $h, expire => 1 } ] },
      'unknown member "expire", did you mean "expires"?' ],
    [ { hash => hash_of(key(1), 'x') },
      '"hash" is an HMAC, which needs "ai_key_secret"' ],
    [ { tenant => 1 }, '"tenant" must be a string' ],
    [ { user => "a\nb" }, 'control character in "user"' ],
    [ { plan => "\0" }, 'control character in "plan"' ],
    [ { models => 'gpt' }, '"models" must be an array of strings' ],
    [ { models => [ 1 ] }, '"models" must be an array of strings' ],
    [ { deny => [ '' ] }, 'an empty string in "deny"' ],
    [ { providers => $true }, '"providers" must be an array of strings' ],
    [ { models => [ "a\0b" ] }, 'control character in "models"' ],
    [ { endpoints => [ 'chats' ] },
      'unknown endpoint "chats", did you mean "chat"?' ],
    [ { scopes => 1 }, '"scopes" must be an array of strings, or a string' ],
    [ { scopes => [ 'a b' ] }, 'an item of "scopes" is empty or has a space' ],
    [ { limits => [] }, '"limits" must be an object' ],
    [ { limits => { rate => 1 } }, '"limits" must be an object of objects' ],
    [ { quotas => { a => {}, b => [] } }, '"quotas" must be an object of ob' ],
    [ { limits => { rate => { requests => 'x' } } },
      '"limits" of zone "rate": invalid "requests": "x": it is not a number' ],
    [ { quotas => { a => { usd => '5/day', tokns => '1/day' } } },
      '"quotas" of zone "a": unknown "tokns", did you mean "tokens"?' ],
    [ { metadata => 'x' }, '"metadata" must be an object' ],
    [ { identities => 'x' }, '"identities" must be an array of at most 64' ],
    [ { identities => [ '' ] }, 'an empty string in "identities"' ],
    [ { identities => [ 'a', 'a' ] }, 'identity "a" is that of another' ],
    [ { identities => [ 1 .. 65 ] }, '"identities" must be an array of at' ],
    [ { disabled => 'yes' }, '"disabled" must be true or false' ],
    [ { foreign => 1 }, '"foreign" must be true or false' ],
    (map { [ { expires => $_ }, '"expires" must be a time like "2027-01' ] }
         '', 'never', '2027-01-31', '2027-02-29T00:00:00Z',
         '2027-13-01T00:00:00Z', '2027-01-31T24:00:00Z',
         '2027-01-31T00:00:00', '2027-01-31T00:00:00.Z',
         '2027-01-31T00:00:00+0100', '2027-01-31T00:00:00Zx', -1, 0,
         1800000000000, 1e20, $true, []),
    [ { not_before => 'x' }, '"not_before" must be a time' ])
{
    my ($more, $error) = @$wrong;
    my $text = bad($error, { 'keys.jsonl' => lines(record(2), record(1, %$more))
                           },
                   qr/keys\.jsonl:2: record "k_000000G9": \Q$error\E/);

    my ($n) = grep { index($text, key($_)) >= 0 } 1, 9;
    ok(!$n, '... no key is shown') if $n;
}

for my $wrong (
    [ '{}', '"id" is missing' ], [ '{"id":""}', '"id" must have from 1 to' ],
    [ '{"id":"a b"}', '"id" must be of ASCII' ],
    [ '{"id":"a\"b"}', '"id" must be of ASCII' ],
    [ '{"id":1}', '"id" must be a string' ],
    [ '{"id":"' . 'x' x 129 . '"}', '"id" must have from 1 to 128 char' ],
    [ '{"id":"' . key(7) . '"}', '"id" is a key, which must not be in the' ],
    [ '{"id":"a","id":"b"}', 'record "b": "id" is there twice' ],
    [ '{"id":"a","tenant":"x","\u0074enant":"y"}',
      'record "a": "tenant" is there twice' ])
{
    my $text = bad($wrong->[1], { 'keys.json' => $wrong->[0] },
                   qr/keys\.json:1: \Q$wrong->[1]\E/);
    is(index($text, key(7)), -1, '... no key is shown');
}

bad('the same id', { 'keys.jsonl' => lines(record(1), record(2),
                                           record(3, id => record(1)->{id})) },
    qr/keys\.jsonl:3: record "k_\w+": there is a record with this id/);
bad('the same hash', { 'keys.jsonl' => lines(record(1),
                                             record(2, hash => $h)) },
    qr/keys\.jsonl:2: record "k_\w+": its hash is that of another record/);
bad('the same identity', { 'keys.jsonl' => lines(
        record(1, identities => [ 'x' ]), record(2, identities => [ 'x' ])) },
    qr/keys\.jsonl:2: record "k_\w+": identity "x" is that of another/);
bad('an identity that is an id', { 'keys.jsonl' => lines(
        record(1), record(2, identities => [ record(1)->{id} ])) },
    qr/keys\.jsonl:2: record "k_\w+": identity "k_\w+" is that of another/);

# revoked.json

sub revoked { return { %$keys, 'revoked.json' => $_[0] } }

good('revoked.json', revoked(json([
    { key => 'k_1' }, { jti => 'a' }, { sub => 'b', issuer => 'corp' },
    { jti => 'c', issuer => 'https://x', until => '2100-01-01T00:00:00Z',
      comment => 'd' }, { key => 'k_1', until => 2e9 } ])));
good('... in an object', revoked('{ "revoked": [ { "key": "k_1" } ] }'));

for my $wrong (
    [ '[{}]', 'exactly one of "key", "jti" and "sub" must be there' ],
    [ '[{"key":"a","sub":"b"}]', 'exactly one of "key", "jti" and "sub"' ],
    [ '[{"key":"a","issuer":"b"}]', '"issuer" is of tokens, not of a "key"' ],
    [ '[{"key":"' . key(7) . '"}]',
      '"key" must be the id of a record, not the key itself' ],
    [ '[{"jti":""}]', '"jti" is empty' ], [ '[{"jti":1}]', '"jti" must be a' ],
    [ '[{"jtl":"x"}]', 'unknown member "jtl", did you mean "jti"?' ],
    [ '[{"jti":"x","until":"soon"}]', '"until" must be a time' ],
    [ '[' . join(',', ('{"jti":"x"}') x 65) . ']',
      'there are more than 64 entries for the same' ])
{
    my $text = bad($wrong->[1], revoked($wrong->[0]),
                   qr/revoked\.json:1: .*\Q$wrong->[1]\E/);
    is(index($text, key(7)), -1, '... no key is shown');
}

# what a record does

unlink glob("$data/*");

my $now = time();
my $iso = sub { strftime('%Y-%m-%dT%H:%M:%SZ', gmtime($now + $_[0])) };

local $ENV{AI_PEPPER} = $pepper;
$gw->{env}{AI_PEPPER} = $pepper;

my @records = (
    record(1), record(2, expires => $now + 3600 | 0),
    record(3, expires => $iso->(-1)), record(4, not_before => $iso->(3600)),
    record(5, not_before => $iso->(-1)), record(6, disabled => $true),
    record(7, hash => [ map { hash_of(key($_)) } 7, 107 ]),
    record(8, hash => [ hash_of(key(8)),
                        { hash => hash_of(key(108)), expires => $iso->(-1) },
                        { hash => hash_of(key(208)), disabled => $true },
                        { hash => hash_of(key(308)),
                          not_before => $iso->(3600) },
                        { hash => hash_of(key(408)),
                          expires => $iso->(3600) } ]),
    record(9, hash => uc(hash_of(key(9))) =~ s/SHA256/sha256/r),
    record(10, hash => hash_of(key(10), $pepper)),
    record(11, hash => [ hash_of(key(11), $pepper), hash_of(key(111)) ]),
    record(12, hash => hash_of('sk-not-ours')),
    record(13, hash => hash_of(key(13, 'live'))));

sub reloaded {
    my (@r) = @_;

    $gw->write_file('data/.keys', lines(@r));
    rename "$data/.keys", "$data/keys.jsonl";
}

reloaded(@records);
$gw->write_conf(keys_conf(who => '', server => '',
                          http => 'ai_key_secret env:AI_PEPPER;'));
$gw->start;

my $id = sub { record($_[0])->{id} };

for my $t ([ 1, 200, 'a key' ], [ 2, 200, 'that expires' ],
           [ 3, 401, 'expired' ], [ 4, 401, 'not yet' ], [ 5, 200, 'by now' ],
           [ 6, 401, 'disabled' ], [ 7, 200, 'one of two' ],
           [ 107, 200, 'the other', 7 ], [ 8, 200, 'one of several' ],
           [ 108, 401, 'expired one of several' ],
           [ 208, 401, 'disabled one of several' ],
           [ 308, 401, 'one of several, not yet' ],
           [ 408, 200, 'one of several, now', 8 ],
           [ 9, 200, 'hash in upper case' ], [ 10, 200, 'HMAC' ],
           [ 11, 200, 'HMAC and hash' ], [ 111, 200, 'hash and HMAC', 11 ],
           [ 14, 401, 'unknown' ])
{
    my ($n, $status, $name, $of) = @$t;
    my $r = ask($gw, key($n));

    is($r->[0], $status, $name);
    is($r->[1], $id->($of // $n), '... whose') if $status == 200;
}

is(ask($gw, key(13, 'live'))->[0], 200, 'another environment');
is(ask($gw, key(13, 'test'))->[0], 401, '... is another key');
is(ask($gw, 'sk-not-ours')->[0], 401, 'a foreign key that is not marked');

# its form alone decides over one that looks like ours

my $key = key(1);

for my $t ([ 'checksum', substr($key, 0, -1)
                         . (substr($key, -1) eq 'a' ? 'b' : 'a') ],
           [ 'a changed letter', $key =~ s/^(.{20})(.)/$1 . ($2 eq 'a' ? 'b'
                                                             : 'a')/er ],
           [ 'short', substr($key, 0, -1) ], [ 'long', "${key}a" ],
           [ 'prefix', 'aigw_' ], [ 'case', uc $key ])
{
    is(ask($gw, $t->[1])->[0], 401, "form: $t->[0]");
}

reloaded(@records[0 .. 10], { %{ $records[11] }, foreign => $true },
         record(20, hash => hash_of(substr $key, 0, -1), foreign => $true),
         record(21, hash => hash_of('other-key')));
ok(defined within(sub { ask($gw, 'sk-not-ours')->[0] == 200 }, 3),
   'a foreign key');
is(ask($gw, 'sk-not-ours')->[1], $id->(12), '... whose');
is(ask($gw, 'sk-not-our')->[0], 401, '... another one');
is(ask($gw, 'other-key')->[0], 401, '... one that is not marked');
is(ask($gw, 'x' x 513)->[0], 401, '... a long one');
is(ask($gw, substr $key, 0, -1)->[0], 401,
   '... that looks like ours, but is not');
is(ask($gw, key(1))->[0], 200, '... and one of ours');

# terms end without a change of the file

reloaded(record(1, expires => time() + 8 | 0),
         record(2, not_before => time() + 8 | 0));
ok(defined within(sub { ask($gw, key(2))->[0] == 401 }, 2), 'before');
is(ask($gw, key(1))->[0], 200, '... that of another one');
ok(defined within(sub { ask($gw, key(1))->[0] == 401 }, 6), 'after');
ok(defined within(sub { ask($gw, key(2))->[0] == 200 }, 4),
   '... that of another one');

my $log = $gw->error_log;
is(scalar(grep { index($log, key($_)) >= 0 } 1 .. 13), 0,
   'no key in the log');

done_testing();
