package AI::Sdk;

# Copyright (C) nginx AI gateway authors

# Runs the scripts of t/sdk with the official SDKs, which "./build.sh test"
# puts into build/venv and build/node:
#
#     plan skip_all => 'no Python SDKs' if !AI::Sdk::have('python');
#     my ($rc, $out) = AI::Sdk::run('py_openai.py', { BASE => ... }, @args);

use strict;
use warnings;

use Cwd ();
use File::Basename qw(basename dirname);
use File::Copy ();

my $top = Cwd::abs_path(dirname(__FILE__) . '/../../..');

# "python" or "node"; SDKs that only half installed are none

sub have {
    my ($what) = @_;

    return $what eq 'python'
           ? -f "$top/build/venv/requirements.txt"
           : -f "$top/build/node/package.json.done";
}

# a script, variables of its environment, arguments; at most 60 seconds

sub run {
    my ($script, $env, @args) = @_;
    my @cmd;

    if ($script =~ /\.py$/) {
        @cmd = ("$top/build/venv/bin/python", "$top/t/sdk/$script");

    } else {
        # node looks for modules beside the script
        for (glob "$top/t/sdk/*.mjs") {
            my $to = "$top/build/node/" . basename($_);
            File::Copy::copy($_, $to) or die "$to: $!";
        }

        @cmd = ('node', "$top/build/node/$script");
    }

    my $pid = open(my $out, '-|') // die "fork: $!";

    if ($pid == 0) {
        open STDERR, '>&', \*STDOUT;
        delete @ENV{grep { /^(?:OPENAI|ANTHROPIC|AI_SDK)_/ } keys %ENV};
        delete @ENV{qw(http_proxy https_proxy HTTP_PROXY HTTPS_PROXY)};
        $ENV{$_} = $env->{$_} for keys %{ $env // {} };
        exec 'timeout', $ENV{TEST_AI_VALGRIND} ? 300 : 120, @cmd, @args
            or do { require POSIX; POSIX::_exit(127) };
    }

    local $/;
    my $text = <$out> // '';
    close $out;

    return ($? >> 8, $text);
}

1;
