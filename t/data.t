#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Live data: what is changed in a file is in force in all workers, without a
# reload, and a file that is broken changes nothing.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(time sleep);

use AI::Gateway;
use AI::Live;
use AI::Kit qw(checked);

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

plan skip_all => 'no ngx_http_ai_auth_module'
    if AI::Gateway::modules()
       && !grep { $_ eq 'ngx_http_ai_auth_module' } AI::Gateway::modules();

my $workers = 4;
my $limit = checked() ? 5 : 1;

my $gw = keys_gateway(workers => $workers, level => 'notice',
                      data => { 'keys.json' => json([ record(1),
                                                      record(2) ]) });
my $data = "$gw->{dir}/data";

# a connection to each worker

my %conn;


sub connections {
    my %at;

    for (1 .. 400) {
        my $fh = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                       PeerPort => $gw->port, Proto => 'tcp')
            or next;
        my $r = ask($gw, key(1), on => $fh);

        $at{$r->[2]} //= $fh if $r->[2];
        last if keys %at == $workers;
    }

    return %at;
}

# what the workers say to a key: "200 200 200 200"

sub told {
    my ($key) = @_;
    return join ' ', map { ask($gw, $key, on => $conn{$_})->[0] }
                     sort { $a <=> $b } keys %conn;
}

sub all { join ' ', ($_[0]) x $workers }

# by rename, as one should

sub put {
    my ($name, $text) = @_;

    $gw->write_file("data/.$name", $text);
    rename "$data/.$name", "$data/$name" or die "rename: $!";
}

# lines of the log that say that something is wrong; only new ones

my $said = 0;
my @lines;

sub complaints {
    my @lines = grep { /\[(?:error|warn|crit)\].* ai data:/ }
                split /\n/, $gw->error_log;

    my @new = @lines[$said .. $#lines];
    $said = @lines;

    return @new;
}

sub in_force {
    my ($name, $check) = @_;
    my $time = within($check, $limit);

    ok(defined $time, $name);
    note(sprintf "%.0f ms", $time * 1000) if defined $time;
}

%conn = connections();
is(scalar(keys %conn), $workers, 'a connection to each worker');

is(told(key(1)), all(200), 'a key');
is(told(key(3)), all(401), 'a key that is not there');
is(ask($gw, key(2))->[1], record(2)->{id}, 'variable');

my $s = status_of($gw);
is("$s->{state} $s->{gen} $s->{records} $s->{failures}", 'ok 1 2 0',
   'variables of a dataset');
is("$s->{revoked} $s->{rgen} $s->{rrecords}", 'none 1 0',
   '... without a file');
is($s->{none}, '', '... of none');

# a change is in force in all of them

put('keys.json', json([ record(2), record(3) ]));
in_force('a new key is in force', sub { told(key(3)) eq all(200) });
is(told(key(1)), all(401), '... a removed one is not');
is(told(key(2)), all(200), '... another one is as before');

$s = status_of($gw);
is("$s->{state} $s->{gen} $s->{records}", 'ok 2 2', '... generation');

ok($gw->wait_log(qr/\[notice\].* ai data: \S+keys\.json: generation 2 with 2 /),
   '... log');

put('keys.json', json([ record(2), record(3, disabled => JSON::PP::true) ]));
in_force('a disabled key is refused', sub { told(key(3)) eq all(401) });

# a list of revoked keys, which was not there before

put('revoked.jsonl', lines({ key => record(2)->{id}, comment => 'leaked' }));
in_force('a revoked key is refused', sub { told(key(2)) eq all(401) });

put('revoked.jsonl', lines({ key => record(2)->{id}, until => time() - 60 }));
in_force('... until then', sub { told(key(2)) eq all(200) });

put('revoked.jsonl', lines(map { { key => record($_)->{id} } } 2, 2, 3));
in_force('... the same twice', sub { told(key(2)) eq all(401) });

put('revoked.jsonl', lines({ key => record(2)->{id}, until => time() + 60 },
                           { key => record(2)->{id}, until => time() - 60 },
                           { jti => 'x', issuer => 'y' }, { sub => 'z' }));
in_force('... one of several terms',
         sub { status_of($gw)->{rrecords} == 4 });
is(told(key(2)), all(401), '... that lasts longest');

put('revoked.jsonl', '');
in_force('an empty .jsonl has no records', sub { told(key(2)) eq all(200) });

# written in place, in one go and slowly

$gw->write_file('data/keys.json', json([ record(2), record(4) ]));
in_force('written in place', sub { told(key(4)) eq all(200) });

complaints();

{
    my $text = json([ map { record($_) } 2, 5 .. 50 ]);

    open my $f, '>', "$data/keys.json" or die;
    $f->autoflush(1);

    my $bad = '';

    for my $part ($text =~ /.{1,500}/sg) {
        print $f $part;
        sleep 0.05;
        $bad .= told(key(2)) . ' ';
    }

    close $f;

    unlike($bad, qr/401/, 'torn: the last good generation is in force');
    in_force('... and then the new one', sub { told(key(50)) eq all(200) });
    is(told(key(4)), all(401), '... all of it');
    @lines = complaints();
    is_deeply(\@lines, [], '... nobody complains') or diag(@lines);
}

# broken

put('keys.json', qq([{"id":"k_1","hash":"x"},\n\n{"id":"k_2"]\n));
in_force('a broken file is noticed',
         sub { status_of($gw)->{state} eq 'stale' });
is(told(key(50)), all(200), '... and changes nothing');

sleep 0.8;
@lines = complaints();
is(scalar @lines, 1, '... one line of the log') or diag(@lines);
like($lines[0], qr{$data/keys\.json:1: record "k_1": "hash" must be},
     '... says what and where');
like($lines[0], qr{the last good generation, \d+ of \d{4}/\d\d/\d\d },
     '... and what is in force');

$s = status_of($gw);
is($s->{failures}, 1, '... failures');

put('keys.json', qq([{"id":"k_1"},\n\n{"id":"k_2"]\n));
in_force('broken in another way', sub { status_of($gw)->{failures} == 2 });
@lines = complaints();
is(scalar @lines, 1, '... another line') or diag(@lines);
like($lines[0], qr{keys\.json:3: }, '... says where');

# and what was good comes back, as if nothing had happened

put('keys.json', json([ map { record($_) } 2, 5 .. 50 ]));
in_force('a good file again', sub { status_of($gw)->{state} eq 'ok' });
is(told(key(50)), all(200), '... in force');

# not there

rename "$data/keys.json", "$data/away" or die;
in_force('a missing file is noticed',
         sub { status_of($gw)->{state} eq 'stale' });
is(told(key(50)), all(200), '... and changes nothing');
sleep 0.8;
@lines = complaints();
is(scalar @lines, 1, '... one line of the log') or diag(@lines);
like($lines[0], qr/there is no "\S+keys\.json" and no "keys\.jsonl"/,
     '... says so');

rename "$data/away", "$data/keys.json" or die;
in_force('it is back', sub { status_of($gw)->{state} eq 'ok' });

# with another extension, both at once

put('keys.jsonl', lines(record(60)));
in_force('.json and .jsonl', sub { status_of($gw)->{state} eq 'stale' });
@lines = complaints();
like($lines[0], qr/both "\S+\.json" and "\S+\.jsonl" are there/, '... log');
unlink "$data/keys.json";
in_force('.jsonl', sub { told(key(60)) eq all(200) });

# not a file, not readable

unlink "$data/keys.jsonl";
mkdir "$data/keys.json";
in_force('a directory', sub { status_of($gw)->{state} eq 'stale'
                              && grep { /is not a regular/ } complaints() });
rmdir "$data/keys.json";

system('mkfifo', "$data/keys.json");
sleep 0.6;
is(told(key(60)), all(200), 'a FIFO stops nobody');
complaints();
unlink "$data/keys.json";

# forms of a file

for my $form (
    [ 'lines', lines(map { record($_) } 61 .. 63) ],
    [ 'lines, no end of the last one',
      lines(map { record($_) } 61 .. 63) =~ s/\n\z//r ],
    [ 'lines with CRLF, empty lines, a byte order mark',
      "\xef\xbb\xbf" . join "\r\n\r\n",
      split /\n/, lines(map { record($_) } 61 .. 63) ],
    [ 'records over several lines',
      join "\n", map { JSON::PP->new->pretty->encode(record($_)) }
                 61 .. 63 ],
    [ 'array', json([ map { record($_) } 61 .. 63 ]) ],
    [ 'array over several lines',
      JSON::PP->new->pretty->encode([ map { record($_) } 61 .. 63 ]) ],
    [ 'object', json({ keys => [ map { record($_) } 61 .. 63 ] }) ],
    [ 'object over several lines', "\n" . JSON::PP->new->pretty->encode(
          { keys => [ map { record($_) } 61 .. 63 ] }) . "\n" ],
    [ 'one object', json(record(61, comment => 'keys')) ],
    [ 'strings with brackets, quotes and backslashes',
      json([ record(61, comment => '}{][\\"\\\\'),
             record(62, name => "\x{1f600}\\"), record(63) ]) ],
    [ 'records longer than what is read at once',
      json([ map { record($_, comment => 'x' x 100000) } 61 .. 63 ]) ])
{
    put('keys.json', json([]));
    within(sub { told(key(61)) eq all(401) }, 5);

    put('keys.json', $form->[1]);
    in_force($form->[0], sub { told(key(61)) eq all(200) });
    is(status_of($gw)->{records}, $form->[0] eq 'one object' ? 1 : 3,
       '... records');
}

@lines = complaints();
is_deeply(\@lines, [], 'no complaint') or diag(@lines);

# as Kubernetes mounts a Secret: keys.json -> ..data/keys.json, ..data -> ..1

unlink glob("$data/*");

sub swap {
    my ($n, $text) = @_;

    mkdir "$data/..$n";
    $gw->write_file("data/..$n/keys.json", $text);
    symlink "..$n", "$data/..data_tmp" or die;
    rename "$data/..data_tmp", "$data/..data" or die;
}

swap(1, json([ record(70) ]));
symlink '..data/keys.json', "$data/keys.json" or die;
in_force('a mounted Secret', sub { told(key(70)) eq all(200) });

swap(2, json([ record(71) ]));
system('rm', '-rf', "$data/..1");
in_force('... a swapped link', sub { told(key(71)) eq all(200) });
is(told(key(70)), all(401), '... and not the old one');

swap(3, '{"keys":[');
in_force('... to a broken one', sub { status_of($gw)->{state} eq 'stale' });
is(told(key(71)), all(200), '... changes nothing');

swap(4, json([ record(72) ]));
in_force('... to a good one', sub { told(key(72)) eq all(200) });
complaints();

unlink "$data/keys.json", "$data/..data";
put('keys.json', json([ record(72) ]));

# changed all the time

{
    my ($n, $good) = (0, 0);
    my $end = time() + 2;

    while (time() < $end) {
        put('keys.json', json([ record(80), record(81 + $n++ % 2) ]));
        $good ||= told(key(80)) eq all(200);
        sleep 0.02;
    }

    ok($good, 'a file that is replaced all the time is in force, too');
    in_force('... and at last what it is then', sub {
        told(key(80 + ($n % 2 ? 1 : 2))) eq all(200)
    });
    @lines = complaints();
    is_deeply(\@lines, [], '... nobody complains') or diag(@lines);
}

# the worker that loads dies, one after the other

sub holder {
    my ($line) = grep { /generation \d+ with/ } reverse split /\n/,
                 $gw->error_log;
    return ($line // '') =~ /\[notice\] (\d+)#/ ? $1 : 0;
}

$gw->allow(qr/exited on signal 9/);
$gw->{problems} = [];

for my $n (1 .. 3) {
    my $pid = holder();

    ok((grep { $_ == $pid } $gw->workers), "one of the workers loads, $n");
    kill 'KILL', $pid;
    $gw->wait_for(sub { grep { $_ != $pid } $gw->workers });
    $gw->wait_for(sub { $gw->workers == $workers });
    %conn = connections();

    put('keys.json', json([ record(1), record(90 + $n) ]));
    in_force('... another takes over', sub {
        told(key(90 + $n)) eq all(200)
    });
}

# a stopped one holds nobody up for long

{
    my $pid = holder();

    kill 'STOP', $pid;
    delete $conn{$pid};
    $workers--;

    put('keys.json', json([ record(1), record(100) ]));
    my $time = within(sub { told(key(100)) eq all(200) }, 15);
    ok(defined $time, 'the worker that loads is stopped');
    note(sprintf '%.0f ms', 1000 * ($time // 0));

    kill 'CONT', $pid;
    $workers++;
    sleep 0.3;
    %conn = connections();
    is(told(key(100)), all(200), '... and goes on');

    put('keys.json', json([ record(1), record(101) ]));
    in_force('... as the others', sub { told(key(101)) eq all(200) });
}

complaints();

# reload: the same generation, unless the file has changed; a broken file is
# said once more and changes nothing

my $before = status_of($gw)->{gen};

ok($gw->reload, 'reload');
%conn = connections();
is(told(key(101)), all(200), '... the keys are in force');
is(status_of($gw)->{gen}, $before, '... not read again');

put('keys.json', json([ record(1), record(102) ]));
ok($gw->reload, 'reload after a change');
%conn = connections();
is(told(key(102)), all(200), '... is in force');

put('keys.json', '{');
in_force('broken', sub { status_of($gw)->{state} eq 'stale' });
complaints();
ok($gw->reload, 'reload with a broken file');
%conn = connections();
is(told(key(102)), all(200), '... changes nothing');
is(status_of($gw)->{state}, 'stale', '... state');
like(join('', complaints()), qr{keys\.json:1: }, '... log');

put('keys.json', json([ record(1), record(103) ]));
in_force('good again', sub { told(key(103)) eq all(200) });

# another directory begins anew, and must be good

mkdir "$gw->{dir}/other";
$gw->write_file('other/keys.json', '[');
$gw->write_conf(keys_conf(ai_data => '%%DIR%%/other', who => '',
                          server => ''));
$gw->allow(qr/ai data: \S+other\/keys\.json/);
kill 'HUP', $gw->master;
ok($gw->wait_log(qr/\[emerg\].*other\/keys\.json:1: /),
   'another directory with a broken file');
is(told(key(103)), all(200), '... leaves the configuration as it is');
put('keys.json', json([ record(1), record(104) ]));
in_force('... alive', sub { told(key(104)) eq all(200) });

$gw->write_file('other/keys.json', json([ record(1), record(110) ]));
ok($gw->reload, '... reload with a good one');
%conn = connections();
is(told(key(110)), all(200), '... in force');
is(told(key(104)), all(401), '... and nothing else');

# another size as well

$gw->write_conf(keys_conf(ai_data => '%%DIR%%/data interval=50ms size=1m',
                          who => '', server => ''));
ok($gw->reload, 'another size');
%conn = connections();
is(told(key(104)), all(200), '... in force');

# too large for the zone

my $full = status_of($gw)->{gen};
put('keys.json', lines(map { record($_, comment => 'x') } 1 .. 8000));
in_force('a full zone', sub { status_of($gw)->{state} eq 'stale' });
@lines = complaints();
like($lines[0],
     qr/the zone is full after \d+ records: make "size" of "ai_data" at le/,
     '... log');
is(told(key(104)), all(200), '... changes nothing');
is(status_of($gw)->{gen}, $full, '... generation');

put('keys.json', lines(map { record($_) } 1 .. 1000));
in_force('... until less is there', sub { told(key(1000)) eq all(200) });

# what the master may read and workers may not

SKIP: {
    my @nobody = getpwnam 'nobody';
    my $group = @nobody ? getgrgid $nobody[3] : undef;

    skip 'needs root, and a user nobody', 7 if $> != 0 || !defined $group;

    my $own = AI::Gateway->new(workers => 1, files => { who => "ok\n" });
    mkdir "$own->{dir}/data";
    $own->write_file('data/keys.json', json([ record(1) ]));
    chmod 0600, "$own->{dir}/data/keys.json";
    $own->write_conf("user nobody $group;\n" . keys_conf(who => '', server => ''));
    $own->start;

    ok($own->wait_log(qr/a worker process may not read "\S+keys\.json"/),
       'a file that workers may not read');
    is(ask($own, key(1))->[0], 200, '... is in force');

    $own->write_file('data/keys.json', json([ record(2) ]));
    ok($own->wait_log(qr/keys\.json: open\(\) failed \(13: /), '... a change');
    is(status_of($own)->{state}, 'stale', '... is not');
    is(ask($own, key(1))->[0], 200, '... and the last good generation is');

    chmod 0644, "$own->{dir}/data/keys.json";
    ok(defined within(sub { ask($own, key(2))->[0] == 200 }, 5),
       '... until they may');
    is(scalar(grep { /open\(\) failed/ } split /\n/, $own->error_log), 1,
       '... one line of the log');
}

# no key anywhere

my $log = $gw->error_log;
ok(index($log, key(104)) < 0, 'no key in the log');

done_testing();
