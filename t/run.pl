#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Runs test files as "prove -r --timer" does, and ends with a line of totals
# that other programs can read:
#
#     412 passed, 0 failed
#
# A file that breaks off (bad plan, exit code, signal) counts as one failure
# more than its failed tests, a test that was skipped as neither.
#
# Usage: t/run.pl [FILE|DIR ...]; TEST_AI_JOBS=N runs N files at a time.

use strict;
use warnings;

use Cwd ();
use File::Basename qw(dirname);
use File::Find ();
use TAP::Harness;

my $top = Cwd::abs_path(dirname(__FILE__) . '/..');
my @files;

for my $arg (@ARGV ? @ARGV : "$top/t") {
    if (-d $arg) {
        File::Find::find({
            no_chdir => 1,
            wanted => sub {
                if (-d && m{/(?:node_modules|\.git)$}) {
                    $File::Find::prune = 1;
                } elsif (/\.t$/ && -f) {
                    push @files, $_;
                }
            }
        }, $arg);

    } else {
        push @files, $arg;
    }
}

my $harness = TAP::Harness->new({
    verbosity => $ENV{TEST_VERBOSE} ? 1 : 0,
    timer => 1,
    jobs => $ENV{TEST_AI_JOBS} || 1,
    lib => [ "$top/t/lib" ],
    color => -t STDOUT ? 1 : 0,
});

my $aggregate = $harness->runtests(sort @files);

my ($passed, $failed, $skipped) = (0, 0, 0);

for my $parser ($aggregate->parsers) {
    my $bad = scalar $parser->failed;
    my $skip = scalar $parser->skipped;

    $passed += scalar($parser->passed) - $skip;
    $skipped += $skip || ($parser->skip_all ? 1 : 0);
    $failed += $bad;

    # exit codes up to 254 are Test::More's count of failed tests
    $failed++ if $parser->parse_errors || ($parser->exit && !$bad);
}

print "$skipped skipped\n" if $skipped;
print "$passed passed, $failed failed\n";

exit($failed ? 1 : 0);
