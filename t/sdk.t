#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# The official SDKs, unmodified, against providers of both dialects that are
# as strict as the real ones (t/lib/AI/Upstream.pm).  The scripts in t/sdk
# print TAP, each test of which is one here.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use AI::Gateway;
use AI::Sdk;
use AI::Upstream;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

plan skip_all => 'no SDKs, run ./build.sh test'
    if !AI::Sdk::have('python') && !AI::Sdk::have('node');

my %key = (openai => 'sk-upstream-1234', anthropic => 'sk-ant-upstream-1234');

my $openai = AI::Upstream->start('openai', key => $key{openai});
my $vllm = AI::Upstream->start('openai', key => $key{openai},
                               flavour => 'vllm');
my $anthropic = AI::Upstream->start('anthropic', key => $key{anthropic});

# names tell some SDKs what a model can do

my %models = (
    openai => {
        'gpt-4.1' => 'openai/gpt-4.1', 'gpt-5.5' => 'openai/gpt-5.5',
        'claude-sonnet-4-5' => 'openai/gpt-4.1',
        'claude-opus-4-7' => 'openai/gpt-5.5',
        'claude-sonnet-4-5-reasoner' => 'vllm/reasoner',
        reasoner => 'vllm/reasoner', byok => 'oai-byok/gpt-4.1',
        embed => 'openai/text-embedding-3-small', gone => 'openai/gone',
        legacy => 'openai/gpt-3.5-turbo-instruct',
    },
    anthropic => {
        'gpt-4.1' => 'anthropic/claude-sonnet-4-5',
        'gpt-5.5' => 'anthropic/claude-opus-4-7',
        'claude-sonnet-4-5' => 'anthropic/claude-sonnet-4-5',
        'claude-opus-4-7' => 'anthropic/claude-opus-4-7',
        'claude-sonnet-4-5-reasoner' => 'anthropic/claude-sonnet-4-5',
        reasoner => 'anthropic/claude-sonnet-4-5',
        byok => 'ant-byok/claude-sonnet-4-5', gone => 'anthropic/gone',
    }
);

my $models = '';

for my $upstream (sort keys %models) {
    $models .= "ai_model $_-$upstream { target $models{$upstream}{$_};"
               . " retry 0; }\n" for sort keys %{ $models{$upstream} };
}

my $gw = AI::Gateway->new(
    ports => { 1 => $openai->port, 2 => $anthropic->port, 3 => $vllm->port },
    conf => <<"END");
events {}
http {
    client_body_buffer_size 1m;
    client_max_body_size    32m;

    ai_provider openai {
        endpoint http://127.0.0.1:%%PORT_1%%/v1;
        key $key{openai};
    }
    ai_provider vllm {
        endpoint http://127.0.0.1:%%PORT_3%%/v1; key $key{openai};
    }
    ai_provider anthropic {
        endpoint http://127.0.0.1:%%PORT_2%%;
        key $key{anthropic};
    }
    ai_provider oai-byok {
        dialect openai; endpoint http://127.0.0.1:%%PORT_1%%/v1;
        client_key pass;
    }
    ai_provider ant-byok {
        dialect anthropic; endpoint http://127.0.0.1:%%PORT_2%%;
        client_key pass;
    }

    $models

    server {
        listen 127.0.0.1:%%PORT_0%%;

        location / {
            ai_pass model;
        }

        location /small/ {
            client_max_body_size 100k;
            ai_pass model;
        }

        # whatever model the client asks for, and its lists of models
        location /direct-openai/    { ai_pass openai; }
        location /direct-anthropic/ { ai_pass anthropic; }
    }
}
END

$gw->start;

my %scripts = (
    'py_openai.py' => 'python', 'py_anthropic.py' => 'python',
    'js_openai.mjs' => 'node', 'js_anthropic.mjs' => 'node',
    'vercel_openai.mjs' => 'node', 'vercel_anthropic.mjs' => 'node',
);

for my $script (sort keys %scripts) {
    for my $upstream (qw(openai anthropic)) {

        next if $ENV{TEST_AI_SDK} && "$script $upstream" !~ $ENV{TEST_AI_SDK};

        subtest "$script, upstream $upstream" => sub {
            plan skip_all => "no SDKs for $scripts{$script}"
                if !AI::Sdk::have($scripts{$script});

            my ($rc, $out) = AI::Sdk::run($script, {
                BASE => 'http://127.0.0.1:' . $gw->port, KEY => 'sk-client',
                UPSTREAM => $upstream, GOOD_KEY => $key{$upstream}
            }, split ' ', $ENV{TEST_AI_SDK_ONLY} // '');

            my $tests = 0;
            my $plan;

            for (split /\n/, $out) {
                if (/^(not )?ok \d+ - (.*)/) {
                    $tests++;
                    ok(!$1, $2);
                } elsif (/^1\.\.(\d+)$/) {
                    $plan = $1;
                } elsif (/^# ?(.*)/) {
                    $1 =~ /^\w+$/ ? note($1) : diag($1);
                } else {
                    diag($_);
                }
            }

            is($plan, $tests, 'all tests ran');
            is($rc, 0, 'exit code');
        };
    }
}

$gw->finish;
done_testing();
