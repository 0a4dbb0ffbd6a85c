#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# The command-line tool with a running nginx: what it changes is in force
# soon, and both have the same opinion of files.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP;
use Test::More;
use Time::HiRes qw(sleep time);

use AI::Gateway;
use AI::Kit;
use AI::Tool;

my $missing = AI::Gateway::missing() // AI::Tool::missing();
plan skip_all => $missing if $missing;

delete $ENV{AIGW_DATA};

my $conf = <<'END';
    ai_data %%DIR%%;
    ai_key_secret file:%%DIR%%/secret;

    ai_provider canned { dialect static; text "hello"; }
    ai_model m { target canned; }
    ai_model n { target canned; }
END

my $server = 'location /v1/ { ai_auth key; ai_pass model; }
              location /cert/ { ai_auth variable=$http_x_name;
                                ai_pass model; }';

my $gw = AI::Gateway->new(files => { secret => "0123456789abcdef\n" },
                          workers => 2, conf => <<"END");
events { }

http {
$conf
    server {
        listen 127.0.0.1:%%PORT_0%%;
        $server
    }
}
END

my $dir = $gw->dir;

sub aigw {
    my @args = @_;
    my %opt = ref $args[-1] ? %{ pop @args } : ();
    return AI::Tool::run([ @args, '--data', $dir ], %opt);
}

sub made {
    my $r = aigw('keys', @_);
    is($r->{rc}, 0, "keys $_[0]") or diag($r->{err});
    my ($key) = $r->{out} =~ /(\S+)/;
    return $key;
}

# the file that is required does not exist yet

my ($rc, $text) = $gw->conf_test;
isnt($rc, 0, 'nginx needs a file of keys');
like($text, qr/aigw keys create --data \Q$dir\E/, '... and says how to get it');

my $key = made('create', '--id', 'first', '--model', 'm');
chmod 0644, "$dir/keys.jsonl";
$gw->start;

sub status {
    my ($key, %opt) = @_;
    my $path = $opt{path} // '/v1/chat/completions';

    return $gw->client->post($path, chat($opt{model} // 'm'),
        headers => [ $opt{headers} ? @{ $opt{headers} }
                                   : (Authorization => "Bearer $key") ])
        ->{status};
}

# soon, by all workers: each request is a connection of its own

my $limit = checked() ? 10 : 3;

sub becomes {
    my ($name, $want, $key, %opt) = @_;
    my $start = time;
    my $took;

    while (time - $start < $limit + 10) {
        my $before = time;
        my @got = map { status($key, %opt) } 1 .. 8;

        if (!grep { $_ != $want } @got) {
            $took = $before - $start;
            last;
        }

        sleep 0.02;
    }

    ok(defined $took && $took < $limit, "$name: $want soon")
        or diag($took // 'never');

    my @after = map { status($key, %opt) } 1 .. 16;
    is(scalar(grep { $_ != $want } @after), 0, '... and so it stays');
}

is(status($key), 200, 'a key that was there at the start');
is(status($key, model => 'n'), 403, '... may use its model only');

my $second = made('create', '--id', 'second');
becomes('create', 200, $second);

made('update', 'second', '--model', 'n');
becomes('update', 403, $second);
made('update', 'second', '--clear', 'models');
becomes('update', 200, $second);

my $new = made('rotate', 'second', '--grace', '6s');
becomes('rotate: the new key', 200, $new);
is(status($second), 200, 'rotate: the old key is good still');
sleep 6.5;
is(status($second), 401, 'rotate: ... until the grace is over');
is(status($new), 200, 'rotate: the new key stays');

$second = $new;
$new = made('rotate', 'second', '--grace', '0');
becomes('rotate: without grace', 401, $second);
becomes('rotate: the new key', 200, $new);

made('disable', 'second');
becomes('disable', 401, $new);
made('enable', 'second');
becomes('enable', 200, $new);

made('revoke', 'second');
becomes('revoke', 401, $new);
made('enable', 'second', '--unrevoke');
becomes('enable --unrevoke', 200, $new);
made('delete', 'second');
becomes('delete', 401, $new);

$new = made('create', '--secret-file', "$dir/secret");
becomes('HMAC', 200, $new);

my $theirs = 'sk-theirs-0123456789-abcdefghij';
is(aigw(qw(keys import-hash --foreign --id theirs), { in => $theirs })->{rc},
   0, 'import-hash');
becomes('import-hash', 200, $theirs);

made('create', '--no-key', '--id', 'cert', '--identity', 'CN=alice,O=x');
becomes('identity', 200, undef, path => '/cert/chat/completions',
        headers => [ 'X-Name' => 'CN=alice,O=x' ]);

$new = made('create', '--id', 'soon', '--not-before', '3s', '--expires', '9s');
is(status($new), 401, 'not before');
sleep 4;
is(status($new), 200, '... now');
sleep 5.5;
is(status($new), 401, '... expired');

# revoked by the list alone: the entry is in force before the larger file

my $third = made('create', '--id', 'third');
becomes('create', 200, $third);
open my $f, '>>', "$dir/revoked.jsonl" or die;
print $f "{\"key\":\"third\"}\n";
close $f;
becomes('an entry by hand', 401, $third);

is($gw->client->post('/v1/chat/completions', chat('m'),
                     headers => [ 'x-api-key' => $key ])->{status}, 200,
   'nothing happened to the first key');

# no key in any log

my $log = $gw->error_log;

for my $secret ($key, $second, $new, $third, $theirs) {
    ok(index($log, substr $secret, -30) < 0, 'no key in the log');
}

$gw->stop;

# what one takes the other takes, and what one refuses the other refuses

my $t = AI::Gateway->new(conf => <<"END");
events { }

http {
    ai_data %%DIR%%;
    ai_provider canned { dialect static; text "hello"; }
    ai_model m { target canned; }

    server {
        listen 127.0.0.1:%%PORT_0%%;
        $server
    }
}
END

$dir = $t->dir;

my $a = 'sha256:' . 'a' x 64;
my $deep = sub { '[' x $_[0] . ']' x $_[0] };

my @records = (
    '{"id":"x"}', '{"id":""}', '{"id":null}', '{"id":1}', '{}', '[]', '1',
    '{"id":"x","id":"x"}', '{"id":"a b"}', '{"id":"\u0061\/"}',
    '{"id":"a\"b"}', '{"id":"\u00e9"}', '{"id":"aigw_live_x"}',
    '{"id":"' . 'x' x 128 . '"}', '{"id":"' . 'x' x 129 . '"}',
    '{"id":"x","modles":[]}', '{"id":"x","ID":1}',
    map({ "{\"id\":\"x\",\"hash\":$_}" }
        "\"$a\"", '"sha256:' . 'A' x 64 . '"', '"sha256:12"', '""', 'null',
        '1', '{}', '[]', "[\"$a\"]", "[\"$a\",\"$a\"]", '[1]', '[null]',
        "[{\"hash\":\"$a\"}]", '[{"expires":1}]', '[{}]',
        "[{\"hash\":\"$a\",\"x\":1}]", "[{\"hash\":\"$a\",\"expires\":\"x\"}]",
        "[{\"hash\":\"$a\",\"expires\":null,\"disabled\":true,"
            . "\"not_before\":5,\"comment\":[],\"created\":{}}]",
        "[{\"hash\":\"$a\",\"disabled\":0}]",
        "[{\"hash\":\"$a\",\"hash\":\"$a\"}]",
        "{\"hash\":\"$a\",\"expires\":5}", '"md5:12"',
        '"\u0073ha256:' . 'a' x 64 . '"',
        '[' . join(',', map { sprintf '"sha256:%064x"', $_ } 1 .. 16) . ']',
        '[' . join(',', map { sprintf '"sha256:%064x"', $_ } 1 .. 17) . ']'),
    map({ my $m = $_; map { "{\"id\":\"x\",\"$m\":$_}" }
          '"a"', '""', 'null', '1', '[]', '{}', 'true', '["a"]', '[""]',
          '[1]', '[null]', '["a b"]', '["a","a"]', '{"z":1}', '{"z":{}}',
          '{"z":{"a":[1]},"z":{}}', '"a\u0001"', '"a b"', '["chat"]',
          '["chat","models","passthrough"]', '["Chat"]' }
        qw(tenant scopes models deny providers endpoints limits quotas
           metadata identities foreign disabled name)),
    map({ "{\"id\":\"x\",\"expires\":$_}" }
        '1', '0', '-1', '1.5', '0.5', '1e9', '99999999999', '100000000000',
        'null', 'true', '[]', '""', '"1"', '"2030-01-01T00:00:00Z"',
        '"2030-01-01t00:00:00z"', '"2030-01-01 00:00:00Z"',
        '"2030-01-01T00:00:00"', '"2030-01-01T00:00Z"', '"2030-01-01"',
        '"2030-01-01T00:00:00.123Z"', '"2030-01-01T00:00:00.Z"',
        '"2030-01-01T00:00:00+01:00"', '"2030-01-01T00:00:00+0100"',
        '"2030-01-01T00:00:00-23:59"', '"2030-01-01T00:00:00+24:00"',
        '"2030-02-29T00:00:00Z"', '"2032-02-29T00:00:00Z"',
        '"2030-13-01T00:00:00Z"', '"2030-00-01T00:00:00Z"',
        '"2030-01-32T00:00:00Z"', '"2030-01-01T24:00:00Z"',
        '"2030-01-01T23:60:00Z"', '"2030-01-01T23:59:60Z"',
        '"2030-01-01T23:59:61Z"', '"1970-01-01T00:00:00Z"',
        '"1970-01-01T00:00:01Z"', '"1969-12-31T00:00:00Z"',
        '"9999-12-31T23:59:59Z"', '"2030-01-01T00:00:00Zx"',
        '" 2030-01-01T00:00:00Z"'),
    map({ "{\"id\":\"x\",\"comment\":$_}" }
        'nul', '01', '1.', '.5', '+1', '1e', '-', '-0', '"\x"', '"\u12"',
        '"', "\"\t\"", '[1,]', '{"a":1,}', '{a:1}', '[1 2]', '"a" "b"',
        $deep->(100), $deep->(127), $deep->(128), $deep->(200)),
    '{"id":"x"', '{"id":"x"}}', '{"id":"x"} x', '{"id":"x"},',
    '{"id":"x","comment":"' . 'x' x 262116 . '"}',
    '{"id":"x","comment":"' . 'x' x 262120 . '"}',
    '{"id":"q"}', '{"id":"Q"}', '{"id":"x","identities":["q"]}',
    '{"id":"x","identities":["x"]}', '{"id":"x","identities":["x","x"]}',
    '{"id":"x","identities":["Q"]}', '{"id":"x","identities":["Q2"]}',
    '{"id":"x","identities":[' . join(',', map { "\"$_\"" } 1 .. 64) . ']}',
    '{"id":"x","identities":[' . join(',', map { "\"$_\"" } 1 .. 65) . ']}',
    '{"id":"x","hash":"sha256:' . 'E' x 64 . '"}',
);

my $first = "{\"id\":\"q\",\"identities\":[\"Q\"],\"hash\":\"sha256:"
            . 'e' x 64 . "\"}";

sub compare {
    my ($name, $what) = @_;
    unlink "$dir/conf_test.out";

    my ($rc, $text) = $t->conf_test;
    my $r = aigw('check', '-q');
    my ($ours) = $r->{err} =~ /^(.*)/;

    ($text) = $text =~ /\[emerg\] (.*)/;
    $text //= 'good';
    $ours //= 'good';

    my $same = ($rc == 0) == ($r->{rc} == 0);
    my $line = ($text =~ /\Q$name\E:(\d+):/)[0] // 0;
    my $ok = $same && ($rc == 0 || !$line || $ours =~ /\Q$name\E:$line:/);

    return if $ok;
    $what = substr($what, 0, 150) . '...' if length $what > 150;
    return "$what\n  nginx: $text\n  aigw:  $ours\n";
}

my @differ;

for my $record (@records) {
    $t->write_file('keys.jsonl', "$first\n\n$record\n");
    push @differ, compare('keys.jsonl', $record);
}

is(scalar @differ, 0, scalar(@records) . ' records') or diag(@differ);

unlink "$dir/keys.jsonl";
@differ = ();

my @files = (
    '', " \n", '[]', '{}', '{"keys":[]}', '{"keys":{}}', '{"keys":[],"x":1}',
    '[{"id":"a"}]', '[{"id":"a"},{"id":"b"}]', '[{"id":"a"} {"id":"b"}]',
    '[{"id":"a"},]', '[,{"id":"a"}]', '[{"id":"a"}', '[', '{"keys":[',
    '{"id":"a"}{"id":"b"}', '{"id":"a"},{"id":"b"}', "[]\n[]", '[] x', '"x"',
    "{\n\"id\":\n\"a\"\n}\n{\n\"id\":\"b\"}", "\xef\xbb\xbf[]",
    "\xef\xbb\xbf{\"id\":\"a\"}", '[[]]', '[1]', '{ "keys" : [ {"id":"a"} ] }',
    '{"keys":[{"id":"a"}]', "{\"id\":\"a\"}\r\n{\"id\":\"b\"}\r\n",
    '{"keys":[{"id":"a"}]}{"id":"b"}', '{"id":"a"}{"keys":[{"id":"b"}]}',
    "\x00", "[{\"id\":\"a\"}]\x00", '{"keys":[]}}', 'null',
);

for my $file (@files) {
    $t->write_file('keys.json', $file);
    push @differ, compare('keys.json', $file);
}

is(scalar @differ, 0, scalar(@files) . ' files') or diag(@differ);

$t->write_file('keys.json', '[]');
@differ = ();

my @revoked = (
    '{"key":"a"}', '{"jti":"a"}', '{"sub":"a"}', '{}', '{"key":""}',
    '{"key":null}', '{"key":1}', '{"key":"a","jti":"b"}',
    '{"jti":"a","sub":"b"}', '{"key":"a","issuer":"i"}', '{"issuer":"i"}',
    '{"jti":"a","issuer":"i","until":"2030-01-01T00:00:00Z","comment":{}}',
    '{"jti":"a","issuer":""}', '{"jti":"a","issuer":1}', '{"kye":"a"}',
    '{"key":"a","until":0}', '{"key":"a","until":null}',
    '{"key":"a","until":"x"}', '{"key":"a","key":"a"}',
    '{"key":"a"}{"key":"a"}', '{"key":"aigw_live_x"}', '{"jti":"aigw_x"}',
    '{"key":"a\u0001"}', '[]', '{"key":"a"}' x 64, '{"key":"a"}' x 65,
    '{"sub":"a"}' x 65, '{"sub":"a"}{"sub":"a","issuer":"i"}' x 64,
);

for my $file (@revoked) {
    $t->write_file('revoked.jsonl', "{\"jti\":\"x\"}\n$file\n");
    push @differ, compare('revoked.jsonl', $file);
}

is(scalar @differ, 0, scalar(@revoked) . ' entries') or diag(@differ);

done_testing();
