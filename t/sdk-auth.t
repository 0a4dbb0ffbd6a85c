#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# The official SDKs with right, wrong, expired and limited keys.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP;
use Test::More;

use AI::Gateway;
use AI::Keys;
use AI::Sdk;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

plan skip_all => 'no SDKs, run ./build.sh test'
    if !AI::Sdk::have('python') && !AI::Sdk::have('node');

my $keys = AI::Keys->new;

my %key = (
    good => $keys->add('good'),
    expired => $keys->add('expired', expires => time() - 60),
    disabled => $keys->add('disabled', disabled => JSON::PP::true),
    small => $keys->add('small', models => [ 'small' ],
                        endpoints => [ 'chat', 'models' ]),
    unknown => $keys->fresh, junk => 'sk-0123456789',
);

$key{mistyped} = $key{good} =~ s/(.)$/$1 eq 'x' ? 'y' : 'x'/er;

my $gw = AI::Gateway->new(files => { 'keys.json' => $keys->text },
                          conf => <<'END')->start;
events {}
http {
    ai_data %%DIR%%;
    ai_provider canned { dialect static; text "fine"; }
    ai_model small { target canned/x; }
    ai_model big   { target canned/x; }
    ai_alias large big;

    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { ai_auth key; ai_pass model; }
    }
}
END

my %scripts = ('py_auth.py' => 'python', 'js_auth.mjs' => 'node');

for my $script (sort keys %scripts) {
    subtest $script => sub {
        plan skip_all => "no SDKs for $scripts{$script}"
            if !AI::Sdk::have($scripts{$script});

        my ($rc, $out) = AI::Sdk::run($script, {
            BASE => 'http://127.0.0.1:' . $gw->port, UPSTREAM => '',
            KEYS => encode_json(\%key)
        });

        my $tests = 0;
        my $plan;

        for (split /\n/, $out) {
            if (/^(not )?ok \d+ - (.*)/) {
                $tests++;
                ok(!$1, $2);
            } elsif (/^1\.\.(\d+)$/) {
                $plan = $1;
            } elsif (/^# ?(.*)/) {
                $1 =~ /^[\w ]+$/ ? note($1) : diag($1);
            } else {
                diag($_);
            }
        }

        is($plan, $tests, 'all tests ran');
        is($rc, 0, 'exit code');
    };
}

# an SDK's refusal is not tried again, so 3 retries are one request

unlike($gw->error_log, qr/\Q$_\E/, 'no key in the log') for values %key;

$gw->finish;
done_testing();
