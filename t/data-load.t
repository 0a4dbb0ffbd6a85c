#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# A large file is loaded while requests go on as if nothing happened.
#
#   TEST_AI_DATA_KEYS  number of keys, 1000000 by default

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(time sleep);

use AI::Gateway;
use AI::Kit qw(checked rss);
use AI::Live;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

plan skip_all => 'no ngx_http_ai_auth_module'
    if AI::Gateway::modules()
       && !grep { $_ eq 'ngx_http_ai_auth_module' } AI::Gateway::modules();

my $keys = $ENV{TEST_AI_DATA_KEYS} // (checked() ? 20000 : 1000000);
my $size = int($keys * 500 / 1000000) + 2;

my $gw = keys_gateway(level => 'notice',
                      conf => { ai_data => "%%DIR%%/data size=${size}m" },
                      data => { 'keys.jsonl' => lines(record(1), record(2)) });
my $data = "$gw->{dir}/data";

sub write_keys {
    my ($mark) = @_;

    open my $f, '>', "$data/.keys" or die;
    print $f lines(map { record($_) } 1 .. 3);

    # as long as real ones
    printf $f '{"id":"key_%08d","hash":"sha256:%056x%08x",'
              . '"tenant":"tenant-%d","user":"user-%d","plan":"%s",'
              . '"models":["gpt-*","claude-*"],'
              . '"expires":"2030-01-01T00:00:00Z"}' . "\n",
              $_, $mark, $_, $_ % 1000, $_, $mark
        for 1 .. $keys;

    close $f;
    rename "$data/.keys", "$data/keys.jsonl" or die;
}

my $fh = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                               PeerPort => $gw->port, Proto => 'tcp');

# requests on one connection, one after another, until the check is true;
# their times in ms, sorted

sub requests {
    my ($check, $seconds) = @_;
    my ($start, @ms, $bad) = (time());

    while (1) {
        my $begin = time();
        my $r = ask($gw, key(1), on => $fh);
        my $end = time();

        push @ms, 1000 * ($end - $begin);
        $bad = $r if $r->[0] != 200;

        last if $check->($r);
        last if $end - $start > $seconds;
    }

    is($bad, undef, '... all are answered');

    return (time() - $start, sort { $a <=> $b } @ms);
}

sub at {
    my ($share, @ms) = @_;
    return $ms[int($share * $#ms)];
}

my ($begin, @quiet) = requests(sub { 0 }, 1);
note(sprintf 'without a load: median %.2f ms, 99.9 %%: %.2f ms, longest '
             . '%.2f ms', at(0.5, @quiet), at(0.999, @quiet), $quiet[-1]);

for my $n (2, 3) {
    write_keys($n);

    my ($time, @ms) = requests(sub { $_[0][3] == $n }, 120);

    ok($ms[-1] && status_of($gw)->{records} == $keys + 3,
       "$keys keys, generation $n");
    note(sprintf '%.1f s; %d requests meanwhile: median %.2f ms, 99 %%: %.2f '
                 . 'ms, 99.9 %%: %.2f ms, longest %.2f ms', $time,
                 scalar @ms, at(0.5, @ms), at(0.99, @ms), at(0.999, @ms),
                 $ms[-1]);

    # other processes take their time as well, and as much as they like
    cmp_ok(at(0.5, @ms), '<', at(0.5, @quiet) + (checked() ? 100 : 20),
           '... a request waits at most 20 ms longer');
    cmp_ok(at(0.99, @ms), '<', at(0.99, @quiet) + (checked() ? 1000 : 300),
           '... and 99 % of them at most 300 ms');

    my $line = $gw->wait_log(qr/generation $n with/);
    my ($work, $most, $longest) = $line =~ /(\d+)\ ms\ of\ work,\ at\ most\ (\d+)\ us
        \ of\ it\ and\ (\d+)\ us\ on\ the\ clock/x;
    note("$work ms of work, at a time at most $most us, $longest us with what "
         . 'other processes did');
    cmp_ok($most, '<', 5000, '... never more than 5 ms of work at a time')
        if !checked();
}

is(ask($gw, key(3))->[0], 200, 'a key');
is(ask($gw, key(4))->[0], 401, 'another key');

# a small file need not wait for a large one

write_keys(4);
sleep 0.7;

$gw->write_file('data/.revoked', json([ { key => record(2)->{id} } ]));
rename "$data/.revoked", "$data/revoked.json";

my $time = within(sub { ask($gw, key(2))->[0] == 401 }, 20);
ok(defined $time, 'a key is revoked while a large file is loaded');
note(sprintf '%.0f ms; %s', 1000 * $time,
             status_of($gw)->{gen} == 3 ? 'in the middle' : 'afterwards');
cmp_ok($time, '<', 5, '... in time') if !checked();

ok(defined within(sub { status_of($gw)->{gen} == 4 }, 60), 'loaded');

# bytes of memory for each key

if (!checked()) {
    my ($kb) = $gw->wait_log(qr/generation 4 with/) =~ /(\d+) KB/;
    note(sprintf '%d bytes for each key', $kb * 1024 / $keys);
}

# the end of the worker in the middle leaves the old generation

write_keys(5);
sleep 0.7;

my ($pid) = $gw->workers;
$gw->allow(qr/exited on signal 9/);
kill 'KILL', $pid;
$gw->wait_for(sub { my @w = $gw->workers; @w && $w[0] != $pid });

$fh = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                            PeerPort => $gw->port, Proto => 'tcp');
is(ask($gw, key(1), on => $fh)->[0], 200,
   'the worker that loads is killed: the old generation is in force');

($time) = requests(sub { $_[0][3] == 5 }, 60);
ok(status_of($gw)->{gen} == 5, '... and another one loads');

# so does a graceful end

write_keys(6);
sleep 0.7;
ok($gw->reload, 'reload');
is(ask($gw, key(1))->[0], 200, '... a key');
ok(defined within(sub { status_of($gw)->{gen} >= 6 }, 60), '... is loaded');

done_testing();
