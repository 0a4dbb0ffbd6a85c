#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# The official SDKs under limits: they wait as told and try again, give up
# where waiting does not help, and take a stream that is cut for a whole one.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use AI::Gateway;
use AI::Kit;
use AI::Sdk;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'no module of limits'
    if AI::Gateway::modules() && !grep { /ratelimit/ } AI::Gateway::modules();
plan skip_all => 'no SDKs, run ./build.sh test'
    if !AI::Sdk::have('python') && !AI::Sdk::have('node');

my $p = provider();
my $url = $p->url;

# the key is in one of two headers

my $gw = gateway(<<"END", server => <<'END2');
    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_model m    { target p/n:5; }
    ai_model long { target p/n:600; }

    map \$http_authorization\$http_x_api_key \$who {
        default                     "";
        ~^(?:Bearer\\ )?(?<k>.*)\$  \$k;
    }

    map \$who \$day { default ""; ~^day- \$who; }
    map \$who \$second { default \$who; ~^day- ""; }

    ai_limit_zone \$second zone=second requests=1r/s;
    ai_quota_zone \$day zone=day requests=1/day;
    ai_quota_zone \$who zone=tokens tokens=400/day;
END
    location /     { ai_limit second; ai_quota day; ai_pass model; }
    location /cut/ { ai_quota tokens overrun=cut; ai_pass model; }
END2

for my $script ('py_limits.py', 'js_limits.mjs') {
    my $what = $script =~ /py$/ ? 'python' : 'node';

    subtest $script => sub {
        plan skip_all => "no SDKs for $what" if !AI::Sdk::have($what);

        my ($rc, $out) = AI::Sdk::run($script, {
            BASE => 'http://127.0.0.1:' . $gw->port, KEY => 'sk-client',
            UPSTREAM => 'openai'
        });

        for (split /\n/, $out) {
            /^(not )?ok \d+ - (.*)/ ? ok(!$1, $2)
            : /^1\.\./ ? undef : /^# ?\w+$/ ? note($_) : diag($_);
        }

        is($rc, 0, 'exit code');
    };
}

$gw->finish;

done_testing();
