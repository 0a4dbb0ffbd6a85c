#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# The plain C parts alone: every t/unit/test_*.c, and every t/unit/fuzz_*.c
# for a few seconds where there is clang with libFuzzer.
#
#   NGX_SRC, NGX_OBJS  headers of nginx, and what its configure has made
#   AI_FUZZ_TIME       seconds for each fuzzer, 0: none
#   AI_FIXTURES        directory of recordings

###############################################################################

use warnings;
use strict;

use Cwd qw/ abs_path /;
use File::Basename qw/ basename dirname /;
use Test::More;

###############################################################################

my $root = abs_path(dirname(__FILE__) . '/..');
my $unit = "$root/t/unit";

my $src = abs_path($ENV{NGX_SRC} || '/usr/share/nginx/src');
my $objs = abs_path($ENV{NGX_OBJS} || "$root/build/objs");
my $out = $ENV{AI_UNIT_OUT} || "$root/build/unit";
my $time = defined $ENV{AI_FUZZ_TIME} ? $ENV{AI_FUZZ_TIME} : 5;

plan(skip_all => 'no headers of nginx: set NGX_SRC')
    unless $src && -f "$src/src/core/ngx_core.h";

plan(skip_all => 'no ngx_auto_config.h: run build.sh or set NGX_OBJS')
    unless $objs && -f "$objs/ngx_auto_config.h";

plan(skip_all => 'no make') if system('make --version >/dev/null 2>&1');

if (!defined $ENV{AI_FIXTURES}) {
    my $dir = abs_path("$root/../shared/fixtures");
    $ENV{AI_FIXTURES} = $dir if defined $dir && -d $dir;
}

$ENV{ASAN_OPTIONS} = 'detect_leaks=1:abort_on_error=0'
    unless defined $ENV{ASAN_OPTIONS};

my @make = ('make', '-s', '-C', $unit, "NGX_SRC=$src", "NGX_OBJS=$objs",
    "OUT=$out");

###############################################################################

my @tests = map { basename($_, '.c') } sort glob("$unit/test_*.c");
my @fuzzers = map { basename($_, '.c') } sort glob("$unit/fuzz_*.c");

plan(tests => @tests + @fuzzers);

for my $test (@tests) {
    my ($rc, $log) = run(@make, "$out/$test");

    if ($rc) {
        fail("$test builds");
        diag($log);
        next;
    }

    subtest $test => sub {
        chdir $unit;
        ($rc, $log) = run("$out/$test");

        relay($rc, $log);
    };
}

my $nofuzz = $time eq '0' ? 'AI_FUZZ_TIME is 0' : fuzzless();

for my $fuzzer (@fuzzers) {
    SKIP: {
        skip("$fuzzer: $nofuzz", 1) if $nofuzz;

        my ($rc, $log) = run(@make, "$out/$fuzzer");

        if ($rc) {
            fail("$fuzzer builds");
            diag($log);
            next;
        }

        mkdir "$out/$fuzzer.corpus";

        ($rc, $log) = run("$out/$fuzzer", "-max_total_time=$time",
            '-max_len=4096', '-timeout=10', '-rss_limit_mb=1024',
            '-verbosity=0', "-dict=$unit/fuzz.dict",
            "-artifact_prefix=$out/$fuzzer.",
            "$out/$fuzzer.corpus");

        ok($rc == 0, "$fuzzer for $time s") or diag($log);
    }
}

###############################################################################

# results of a test program as those of a subtest

sub relay {
    my ($rc, $log) = @_;
    my ($n, $planned) = (0, undef);

    for my $line (split /\n/, $log) {

        if ($line =~ /^(not )?ok \d+(?: - (.*))?(?: ?# SKIP (.*))?$/) {
            $n++;

            if (defined $3) {
                SKIP: { skip($3, 1); }

            } else {
                ok(!$1, $2);
            }

        } elsif ($line =~ /^1\.\.(\d+)$/) {
            $planned = $1;

        } else {
            $line =~ s/^# ?//;
            diag($line);
        }
    }

    ok($rc == 0 && defined $planned && $planned == $n,
        'ran to its end') or diag("exit code $rc");
}

sub run {
    my (@command) = @_;

    my $pid = open(my $fh, '-|');
    die "fork: $!" unless defined $pid;

    if ($pid == 0) {
        open STDERR, '>&', \*STDOUT;
        exec @command or exit 127;
    }

    local $/;
    my $log = <$fh>;
    close $fh;

    return ($?, defined $log ? $log : '');
}

sub fuzzless {
    my $cc;

    for my $name (qw/ clang clang-19 clang-18 clang-17 clang-16 clang-15
        clang-14 /)
    {
        next if system("$name --version >/dev/null 2>&1");
        $cc = $name;
        last;
    }

    return 'no clang' unless defined $cc;

    mkdir "$root/build" unless $ENV{AI_UNIT_OUT};
    mkdir $out;

    my $probe = "$out/fuzz-probe";

    open my $fh, '>', "$probe.c" or return "$probe.c: $!";
    print $fh "int LLVMFuzzerTestOneInput(const unsigned char *p, "
        . "unsigned long n);\n"
        . "int LLVMFuzzerTestOneInput(const unsigned char *p, "
        . "unsigned long n) { return p && n ? 0 : 0; }\n";
    close $fh;

    my ($rc) = run($cc, '-fsanitize=fuzzer,address', '-o', $probe,
        "$probe.c");

    return $rc ? "$cc has no libFuzzer" : '';
}

###############################################################################
