package AI::Tool;

# Copyright (C) nginx AI gateway authors

# The command-line tool:
#
#     plan skip_all => $missing if my $missing = AI::Tool::missing();
#
#     my $r = AI::Tool::run([ qw(keys create --data), $dir ], in => '...');
#     $r->{rc}; $r->{out}; $r->{err};
#
# Environment: TEST_AI_TOOL, by default build/aigw/aigw.

use strict;
use warnings;

use Cwd ();
use File::Basename qw(dirname);
use File::Temp ();
use POSIX ();

our $bin = $ENV{TEST_AI_TOOL}
           // Cwd::abs_path(dirname(__FILE__) . '/../../..')
              . '/build/aigw/aigw';

sub missing {
    return -x $bin ? undef : "no $bin, run ./build.sh (needs libcjson-dev)";
}

sub slurp {
    my ($name) = @_;
    open my $f, '<', $name or die "$name: $!";
    binmode $f;
    local $/;
    return <$f> // '';
}

# in (text), out (a file for the standard output), close (1: it is closed)

sub run {
    my ($args, %opt) = @_;
    my $in = File::Temp->new;
    my $out = File::Temp->new;
    my $err = File::Temp->new;

    binmode $in;
    print $in $opt{in} // '';
    close $in;

    my $pid = spawn($args, in => "$in", err => "$err",
                    out => $opt{out} // "$out", close => $opt{close});
    waitpid $pid, 0;

    return { rc => $? & 127 ? -$? : $? >> 8, err => slurp("$err"),
             out => slurp("$out") };
}

sub spawn {
    my ($args, %opt) = @_;
    my $pid = fork // die "fork: $!";

    return $pid if $pid;

    open STDIN, '<', $opt{in} // '/dev/null' or POSIX::_exit(99);
    open STDOUT, '>', $opt{out} // '/dev/null' or POSIX::_exit(99);
    open STDERR, '>', $opt{err} // '/dev/null' or POSIX::_exit(99);
    close STDOUT if $opt{close};

    exec { $bin } $bin, @$args or POSIX::_exit(99);
}

1;
