#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Where ai_log writes: files of several workers that are rotated while
# requests come, buffers, full disks, pipes with and without a reader.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Fcntl;
use JSON::PP;
use POSIX qw(mkfifo);
use Test::More;
use Time::HiRes qw(sleep time);

use AI::Kit;
use AI::Gateway;
use AI::Provider;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

my $decoder = JSON::PP->new->utf8;

sub conf {
    my ($logs) = @_;

    return <<"END";
    ai_provider s { dialect static; text "one two three"; }
    ai_model m { target s/x; price in=1 out=1; }

    $logs
END
}

my $server = <<'END';
        location /v1/ { ai_pass model; }
        location /b/  { ai_log %%DIR%%/buffer.log buffer=64k flush=1h;
                        ai_pass model; }
        location /t/  { ai_log %%DIR%%/timer.log buffer=64k flush=100ms;
                        ai_pass model; }
END

# objects of the lines of files; what is no line is counted

my $broken = 0;

sub objects {
    my ($gw, @files) = @_;
    my @objects;

    for my $file (@files) {
        my $text = $gw->read_file($file);

        $broken++ if length $text && $text !~ /\n\z/;

        for my $line (split /\n/, $text) {
            my $object = eval { $decoder->decode($line) };
            $broken++ if !$object;
            push @objects, $object if $object;
        }
    }

    return @objects;
}

# load of several clients, one id for each request

sub load {
    my ($gw, $path, $clients, $each, $during) = @_;
    my @pids;

    for my $c (1 .. $clients) {
        my $pid = fork // die "fork: $!";

        if ($pid == 0) {
            my $good = 0;

            for my $i (1 .. $each) {
                my $r = $gw->client->post($path, chat('m', stream => $i & 1),
                             headers => [ 'X-Request-Id' => "id-$c-$i" ]);
                $good++ if $r->{status} == 200;
            }

            POSIX::_exit($good == $each ? 0 : 1);
        }

        push @pids, $pid;
    }

    $during->() if $during;

    my $bad = 0;
    for (@pids) {
        waitpid $_, 0;
        $bad++ if $?;
    }

    return !$bad;
}

# rotation by USR1 under load, of several workers

for my $buffer ('', 'buffer=8k flush=200ms') {
    my $gw = gateway(conf("ai_log %%DIR%%/ai.log $buffer;"), workers => 3,
                     server => $server);
    my ($clients, $each) = (4, 150);
    my $rotated = 0;

    ok(load($gw, '/v1/chat/completions', $clients, $each, sub {
        for (1 .. 5) {
            sleep 0.1;
            rename $gw->dir . '/ai.log', $gw->dir . '/ai.log.' . ++$rotated;
            kill 'USR1', $gw->master;
            $gw->wait_for(sub { -e $gw->dir . '/ai.log' });
        }
    }), "rotated under load: $buffer");

    $gw->stop;

    my @files = ('ai.log', map { "ai.log.$_" } 1 .. $rotated);
    my @lines = objects($gw, @files);
    my %ids = map { $_->{request_id} => 1 } @lines;

    is($broken, 0, '... each line is whole');
    is(scalar(@lines), $clients * $each, '... one for each request');
    is(scalar(keys %ids), $clients * $each, '... none is twice');
    cmp_ok(scalar(grep { -s $gw->dir . "/$_" } @files), '>', 1,
           '... in several files');

    my ($in, $out) = (0, 0);
    for (@lines) {
        $in += $_->{input_tokens};
        $out += $_->{output_tokens};
    }

    is($out, 3 * $clients * $each, '... the sum of their tokens');
    cmp_ok($in, '>', $clients * $each, '... and of the input');
}

# buffers

my $gw = gateway(conf(''), server => $server, workers => 2);

$gw->client->post('/b/chat/completions', chat('m')) for 1 .. 3;
sleep 0.3;
is($gw->read_file('buffer.log'), '', 'a buffer waits');

kill 'USR1', $gw->master;
ok($gw->wait_for(sub { objects($gw, 'buffer.log') == 3 }),
   '... until the file is opened anew');

$gw->client->post('/b/chat/completions', chat('m')) for 1 .. 2;
$gw->reload;
ok($gw->wait_for(sub { objects($gw, 'buffer.log') == 5 }),
   '... or a worker ends');

$gw->client->post('/t/chat/completions', chat('m'));
ok($gw->wait_for(sub { objects($gw, 'timer.log') == 1 }, 3),
   '... or for a time');

my $many = 500;
$gw->client->post('/b/chat/completions', chat('m')) for 1 .. $many;
cmp_ok(scalar(objects($gw, 'buffer.log')), '>', 5, '... or is full');

$gw->stop;
is(scalar(objects($gw, 'buffer.log')), 5 + $many, '... or nginx ends');
is($broken, 0, '... and all lines are whole');

# a line that is longer than the buffer

$gw = gateway(conf('ai_log %%DIR%%/ai.log buffer=4k content=full max=100k;'),
              server => $server);

for my $size (10, 30_000, 10) {
    $gw->client->post('/v1/chat/completions', chat('m', messages => [
        { role => 'user', content => 'x' x $size } ]));
}

$gw->stop;
is(join(' ', map { length $_->{prompt}[0]{text} } objects($gw, 'ai.log')),
   '10 30000 10', 'a line that is longer than the buffer');

# a full disk

$gw = gateway(conf('ai_log /dev/full; ai_log %%DIR%%/ai.log;'),
              server => $server);

for (1 .. 3) {
    my $r = $gw->client->post('/v1/chat/completions', chat('m'));
    is($r->{status}, 200, 'a full disk: a request');
}

like($gw->wait_log(qr/ai log: /) // '',
     qr{\[error\].*ai log: 1 lines for "/dev/full" were lost.*28: No space},
     '... the loss is told');
sleep 0.5;
is(scalar(grep { /ai log:/ } split /\n/, $gw->error_log), 1, '... once');
is(scalar(objects($gw, 'ai.log')), 3, '... the other log has all');

# pipes: nobody waits for a reader

$gw = AI::Gateway->new;
mkfifo($gw->dir . '/pipe', 0666) or die "mkfifo: $!";
mkfifo($gw->dir . '/buffered', 0666) or die "mkfifo: $!";
my $dir = $gw->dir;

$gw = gateway(conf("ai_log $dir/pipe; ai_log $dir/buffered buffer=32k flush=50ms;"
                   . " ai_log %%DIR%%/ai.log;"), workers => 2,
              server => $server);

my $start = time();
my $good = 0;
for (1 .. 400) {
    my $r = $gw->client->post('/v1/chat/completions', chat('m'));
    $good++ if $r->{status} == 200;
}
is($good, 400, 'a pipe without a reader');
cmp_ok(time() - $start, '<', 60, '... blocks nobody');
ok($gw->wait_log(qr/ai log: \d+ lines for ".*pipe" were lost/),
   '... what it does not take is lost, and told');

# a reader finds whole lines only

sysopen my $reader, "$dir/pipe", O_RDONLY | O_NONBLOCK or die "open: $!";
sysopen my $second, "$dir/buffered", O_RDONLY | O_NONBLOCK or die "open: $!";

# F_SETPIPE_SZ: room for all of it, however slow this machine is
fcntl $_, 1031, 1 << 20 for $reader, $second;

my %got = (pipe => '', buffered => '');

sub drain {
    for ([ pipe => $reader ], [ buffered => $second ]) {
        my ($name, $f) = @$_;
        while (sysread $f, my $part, 65536) {
            $got{$name} .= $part;
        }
    }
}

drain();
my $before = () = $got{pipe} =~ /\n/g;
cmp_ok($before, '>', 10, 'a reader has what fits into a pipe');
cmp_ok($before, '<', 400, '... not all');

ok(load($gw, '/v1/chat/completions', 3, 60, sub {
    for (1 .. 100) {
        drain();
        sleep 0.02;
        last if ($got{pipe} =~ tr/\n//) >= $before + 180;
    }
}), 'with a reader');

# of the last lines each worker has some in its buffer

$gw->wait_for(sub {
    drain();
    return !grep { my %id = map { $_ => 1 } $got{$_} =~ /"(id-\d+-\d+)"/g;
                   keys %id < 180 } keys %got;
}, 5);

for my $name (qw(pipe buffered)) {
    my @lines = split /\n/, $got{$name};
    my @objects = grep { $_ } map { scalar eval { $decoder->decode($_) } }
                  @lines;

    is(scalar(@objects), scalar(@lines), "$name: all lines are whole");

    my %ids = map { $_->{request_id} => 1 } @objects;
    is(scalar(grep { $ids{"id-$_"} }
              map { my $c = $_; map { "$c-$_" } 1 .. 60 } 1 .. 3), 180,
       '... none is lost');
}

close $reader;

my $r = $gw->client->post('/v1/chat/completions', chat('m'));
is($r->{status}, 200, 'the reader has left');

ok($gw->stop, 'nginx ends');

my $bad = AI::Gateway->new(conf => <<"END");
events {}
http {
    ai_log $dir/pipe content=full;
}
END
my ($rc, $out) = $bad->conf_test;
isnt($rc, 0, 'a pipe takes no contents');
like($out, qr/is a pipe, which takes lines of \d+ bytes.*nginx\.conf:3/,
     '... says so');

# /dev/stdout may be a pipe

pipe my $stdout, my $writer or die "pipe: $!";
my $config = AI::Gateway->new(conf => <<"END");
events {}
http { ai_log /dev/stdout; }
END

my $pid = fork // die "fork: $!";
if ($pid == 0) {
    open STDOUT, '>&', $writer;
    my ($code) = $config->conf_test;
    POSIX::_exit($code);
}
waitpid $pid, 0;
is($?, 0, '/dev/stdout');

done_testing();
