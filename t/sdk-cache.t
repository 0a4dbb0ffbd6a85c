#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# The official SDKs see no difference between a hit and a miss.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use AI::Gateway;
use AI::Provider;
use AI::Sdk;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

plan skip_all => 'no SDKs, run ./build.sh test'
    if !AI::Sdk::have('python') && !AI::Sdk::have('node');

# models are named by what they say

my $p = AI::Provider->start(handler => sub {
    my ($req) = @_;
    my $json = $req->{json};
    my $anthropic = $req->{path} =~ m{/messages$};

    if ($req->{path} =~ m{/embeddings$}) {
        my $base64 = ($json->{encoding_format} // '') eq 'base64';

        return json_script(200, encode({
            object => 'list', model => 'e',
            data => [ { object => 'embedding', index => 0, embedding =>
                        $base64 ? 'AAAAPwAAgL8=' : [ 0.5, -1 ] } ],
            usage => { prompt_tokens => 3, total_tokens => 3 } }));
    }

    my %say = (text => 'Hello there, friend.', stream => $json->{stream},
               model => $json->{model}, usage => { in => 9, out => 5 });

    $say{id} = ($anthropic ? 'msg_' : 'chatcmpl-') . 'a1B2c3D4e5F6g7H8';
    $say{tools} = [ { id => 'call_1', name => 'weather',
                      args => '{"city":"Basel"}' } ]
        if $json->{tools};
    $say{usage} = undef if !$anthropic && $json->{stream}
                           && !$json->{stream_options}{include_usage};

    return $anthropic ? anthropic_script(%say) : openai_script(%say);
});
my $url = $p->url;

my $gw = AI::Gateway->new(conf => <<"END")->start;
events {}
http {
    ai_cache_zone answers 4m;

    ai_provider o { dialect openai; endpoint $url; key none; }
    ai_provider a { dialect anthropic; endpoint $url; key none; }

    server {
        listen 127.0.0.1:%%PORT_0%%;

        ai_cache answers ttl=1m scope=global;

        location /v1/ { ai_pass \$to; }
    }

    map \$ai_request_model \$to { default a; ~^oai o; }
}
END

my %scripts = ('py_cache.py' => 'python', 'js_cache.mjs' => 'node');

for my $script (sort keys %scripts) {
    subtest $script => sub {
        plan skip_all => "no SDKs for $scripts{$script}"
            if !AI::Sdk::have($scripts{$script});

        my ($rc, $out) = AI::Sdk::run($script, {
            BASE => 'http://127.0.0.1:' . $gw->port, UPSTREAM => ''
        });

        my $tests = 0;
        my $plan;

        for (split /\n/, $out) {
            if (/^(not )?ok \d+ - (.*)/) {
                $tests++;
                ok(!$1, $2);
            } elsif (/^1\.\.(\d+)$/) {
                $plan = $1;
            } elsif (/^# ?([\w ]+)$/) {
                note($1);
            } else {
                diag($_);
            }
        }

        is($plan, $tests, 'all tests ran');
        is($rc, 0, 'exit code');
    };
}

$gw->finish;
done_testing();
