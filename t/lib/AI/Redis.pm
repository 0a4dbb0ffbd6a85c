package AI::Redis;

# Copyright (C) nginx AI gateway authors

# A redis-server on a port of its own, and a proxy that delays what passes:
#
#     my $redis = AI::Redis->new(conf => "appendonly yes\n");
#     $redis->start;  $redis->kill;  $redis->stop;  $redis->cont;
#     $redis->cmd('HGETALL', 'key');
#
#     my $slow = $redis->proxy;  $slow->{port};  $slow->delay(0.2);

use strict;
use warnings;

use File::Path qw(remove_tree);
use File::Temp ();
use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Time::HiRes qw(time sleep);

use AI::Port;

my $owner = $$;
my @all;

# a reason to skip all tests of a file, or undef

sub missing {
    return if grep { -x "$_/redis-server" } split(/:/, $ENV{PATH}),
                                            '/usr/bin', '/usr/sbin';
    return 'no redis-server';
}

# conf (lines), tls (true: the port is one of TLS; cert, key, ca), socket;
# disk (true: its files are on a disk, where fsync() takes as long as others
# have to write; kill() loses nothing of a file in memory either)

sub new {
    my ($class, %arg) = @_;

    my $self = bless {
        port => AI::Port::free_port(), conf => '', %arg,
        dir => File::Temp::tempdir('ai-redis-XXXXXX',
                                   !$arg{disk} && -w '/dev/shm'
                                   ? (DIR => '/dev/shm') : (TMPDIR => 1)),
    }, $class;

    $self->{socket} = "$self->{dir}/redis.sock";
    push @all, $self;

    return $self;
}

sub start {
    my ($self) = @_;
    my $dir = $self->{dir};

    my $port = $self->{tls}
        ? "port 0\ntls-port $self->{port}\ntls-cert-file $self->{cert}\n"
          . "tls-key-file $self->{key}\ntls-ca-cert-file $self->{ca}\n"
          . "tls-auth-clients no\n"
        : "port $self->{port}\n";

    open my $f, '>', "$dir/redis.conf" or die "$dir/redis.conf: $!";
    print $f "bind 127.0.0.1\n${port}dir $dir\nunixsocket $self->{socket}\n"
             . "daemonize no\nsave \"\"\n$self->{conf}";
    close $f;

    my $pid = fork // die "fork: $!";

    if ($pid == 0) {
        setpgrp;
        open STDIN, '<', '/dev/null';
        open STDOUT, '>>', "$dir/redis.log";
        open STDERR, '>&', \*STDOUT;
        exec 'redis-server', "$dir/redis.conf" or POSIX::_exit(127);
    }

    $self->{pid} = $pid;

    my $end = time() + 10;

    while (time() < $end) {
        my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                      PeerPort => $self->{port},
                                      Proto => 'tcp');
        return $self if $s && ($self->{tls} || $self->{quiet}
                               || ($self->cmd('PING') // '') =~ /PONG|NOAUTH/);
        sleep 0.02;
    }

    die "redis-server did not start: see $dir/redis.log";
}

sub kill {
    my ($self, $signal) = @_;
    my $pid = delete $self->{pid} or return;

    CORE::kill 'CONT', $pid;
    CORE::kill $signal // 'KILL', $pid;
    waitpid $pid, 0;
}

sub stop { CORE::kill 'STOP', $_[0]{pid} }
sub cont { CORE::kill 'CONT', $_[0]{pid} }

# the answer as a string, or a list of them; errors begin with "-"

sub cmd {
    my ($self, @args) = @_;

    my $s = $self->{client};

    if (!$s || !$s->connected || $self->{client_pid} != ($self->{pid} // 0)) {
        $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                   PeerPort => $self->{port}, Timeout => 2)
            or return;
        @$self{qw(client client_pid)} = ($s, $self->{pid} // 0);

        $self->cmd(@{ $self->{auth} }) if $self->{auth};
    }

    print $s '*' . @args . "\r\n"
             . join '', map { '$' . length($_) . "\r\n$_\r\n" } @args;
    $s->flush;

    return read_reply($s);
}

sub read_reply {
    my ($s) = @_;

    my $line = <$s> // return;
    $line =~ s/\r\n$//;

    my ($type, $rest) = $line =~ /^(.)(.*)$/ or return;

    return $rest if $type eq '+' || $type eq ':';
    return $line if $type eq '-';

    if ($type eq '$') {
        return if $rest < 0;
        read $s, my $data, $rest + 2;
        return substr $data, 0, $rest;
    }

    my @list = map { scalar read_reply($s) } 1 .. $rest;

    return wantarray ? @list : \@list;
}

# a process of its own between clients and this redis

sub proxy {
    my ($self) = @_;

    my $port = AI::Port::free_port();
    my $listen = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
                                       LocalPort => $port, Listen => 64,
                                       ReuseAddr => 1) or die "proxy: $!";
    pipe my $r, my $w or die "pipe: $!";

    my $pid = fork // die "fork: $!";

    if ($pid == 0) {
        setpgrp;
        close $w;
        relay($listen, $r, $self->{port});
        POSIX::_exit(0);
    }

    close $r;
    $w->autoflush;

    my $proxy = bless { port => $port, pid => $pid, control => $w },
                      'AI::Redis::Proxy';
    push @all, $proxy;

    return $proxy;
}

sub relay {
    my ($listen, $control, $to) = @_;
    my ($delay, %peer, %due, @late) = (0);
    my $select = IO::Select->new($listen, $control);

    while (1) {
        my $now = time();

        while (@late && $late[0][0] <= $now) {
            my (undef, $s, $data) = @{ shift @late };
            syswrite $s, $data if $s->connected;
        }

        my $wait = @late ? $late[0][0] - $now : 1;

        for my $s ($select->can_read($wait > 0 ? $wait : 0)) {

            if ($s == $control) {
                sysread($control, my $text, 64) or return;
                ($delay) = $text =~ /([\d.]+)\n$/;
                next;
            }

            if ($s == $listen) {
                my $c = $listen->accept or next;
                my $u = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                              PeerPort => $to)
                    or do { close $c; next };
                @peer{$c, $u} = ($u, $c);
                $select->add($c, $u);
                next;
            }

            my $other = $peer{$s} or next;

            if (!sysread $s, my $data, 65536) {
                delete @peer{$s, $other};
                delete @due{$s, $other};
                $select->remove($s, $other);
                close $_ for $s, $other;

            } else {
                # in order on each connection, whatever the delay becomes
                my $due = time() + $delay;
                $due = $due{$other} if $due < ($due{$other} // 0);
                $due{$other} = $due;

                @late = sort { $a->[0] <=> $b->[0] }
                             @late, [ $due, $other, $data ];
            }
        }
    }
}

END {
    if ($$ == $owner) {
        local $?;

        for (@all) {
            next if !$_->{pid};
            CORE::kill 'CONT', $_->{pid};
            CORE::kill 'KILL', $_->{pid};
            waitpid $_->{pid}, 0;
        }

        remove_tree($_->{dir}) for grep { $_->{dir} } @all;
    }
}


package AI::Redis::Proxy;

# seconds that everything takes longer, there and back together

sub delay {
    my ($self, $seconds) = @_;

    print { $self->{control} } $seconds / 2, "\n";
    select undef, undef, undef, 0.05;
}

1;
