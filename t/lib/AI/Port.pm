package AI::Port;

# Copyright (C) nginx AI gateway authors

# Free TCP ports below the range from which the kernel takes ports of outgoing
# connections, so that nothing else takes them meanwhile; a lock file per port
# keeps test files that run at the same time apart.

use strict;
use warnings;

use Fcntl qw(:flock);
use File::Spec;
use IO::Socket::INET;

my @locks;
my $next = 20000 + ($$ * 37) % 9000;

sub free_port {
    my $dir = File::Spec->tmpdir . "/ai-test-ports-$>";

    mkdir $dir, 0700;

    for (1 .. 10000) {
        my $port = $next++;
        $next = 20000 if $next > 30000;

        open my $lock, '>>', "$dir/$port" or die "$dir/$port: $!";
        next if !flock $lock, LOCK_EX | LOCK_NB;

        my $s = IO::Socket::INET->new(
            LocalAddr => '127.0.0.1', LocalPort => $port, Proto => 'tcp',
            Listen => 1, ReuseAddr => 1
        ) or next;

        close $s;
        push @locks, $lock;

        return $port;
    }

    die "no free port";
}

1;
