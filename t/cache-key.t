#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# What makes two requests one for the cache: across dialects and spellings,
# and never across tenants.  t/unit/test_cache_key.c has each member.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP;
use Test::More;
use Time::HiRes qw(time);

use AI::Kit;
use AI::Gateway;
use AI::Provider;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'no module of the cache'
    if AI::Gateway::modules() && !grep { /cache/ } AI::Gateway::modules();

# no answer is given twice

sub answer {
    my ($req) = @_;
    my $json = $req->{json};
    my %say = (model => $json->{model}, stream => $json->{stream},
               text => "answer $req->{n}");

    return $req->{path} =~ m{/messages$} ? anthropic_script(%say)
                                         : openai_script(%say);
}

my $p = AI::Provider->start(handler => \&answer);
my $url = $p->url;

my $gw = gateway(<<"END", workers => 2, server => <<'END');
    ai_cache_zone answers 16m;

    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_model m { target p/x; }
    ai_model other { target p/x; }
    ai_alias alias m;

    ai_cache answers ttl=10m scope=global;
    ai_cache_any on;
END
    location /v1/     { ai_pass model direct=on; }
    location /tenant/ { ai_pass model; ai_cache answers ttl=10m
                        scope=$http_x_tenant; }
    location /sure/   { ai_pass model; ai_cache_any off; }
    location /small/  { ai_pass model; ai_max_nodes 64; }
    location /vary/   { ai_pass model; ai_cache answers ttl=10m scope=global
                        vary=$http_x_vary; }
END

my $client = $gw->client;

sub post {
    my ($path, $body, @headers) = @_;
    return $client->post($path, $body,
                   headers => [ 'Content-Type' => 'application/json',
                                @headers ]);
}

sub is_state {
    my ($r, $state, $name) = @_;
    my $is = $r->{headers}{'x-ai-cache'} // 'none';

    $is = 'HIT' if $is eq 'COALESCED';
    is("$r->{status} $is", "200 $state", $name);
}

my $openai = '/v1/chat/completions';
my $anthropic = '/v1/messages';


# one question

for my $first (0 .. 1) {
    my $q = "question $first";

    my @same = (
        [ $openai, qq({"model":"m","max_tokens":50,"temperature":0.5,)
          . qq("messages":[{"role":"system","content":"Be brief."},)
          . qq({"role":"user","content":"$q \xc3\xa9"}]}) ],
        [ $anthropic, qq({"model":"m","max_tokens":50,"temperature":0.5,)
          . qq("system":"Be brief.","messages":[{"role":"user",)
          . qq("content":"$q \xc3\xa9"}]}) ],
        [ $anthropic, qq({"messages":[{"content":[{"text":"$q \\u00e9",)
          . qq("type":"text","cache_control":{"type":"ephemeral"}}],)
          . qq("role":"user"}],"system":[{"type":"text","text":)
          . qq("Be brief."}],"temperature":5e-1,"max_tokens":50.0,)
          . qq("stream":true,"metadata":{"user_id":"u"},"model":"alias"}) ],
        [ $openai, qq( {"user":"me", "messages" : [ {"content":)
          . qq("Be\\u0020brief.","role":"system"},\n{"role":"user","content":)
          . qq([{"type":"text","text":"$q \\u00E9"}]}],"stream":true,)
          . qq("stream_options":{"include_usage":true},"n":1,"logprobs":)
          . qq(false,"max_completion_tokens":50,"temperature":0.50,)
          . qq("metadata":{"a":"b"},"store":false,"model":"m"}) ],
    );

    @same = reverse @same if $first;

    for (0 .. $#same) {
        is_state(post(@{ $same[$_] }), $_ ? 'HIT' : 'MISS',
                 "spelling $_ of $q");
    }
}


# other questions

{
    my @messages = (messages => [ { role => 'user', content => 'other' } ]);
    my $base = { model => 'm', max_tokens => 50, @messages };

    is_state(post($openai, $base), 'MISS', 'another question');

    my %more = (
        temperature => 1, top_p => 0.5, top_k => 3, seed => 1, stop => 'x',
        max_tokens => 51, frequency_penalty => 1, presence_penalty => 1,
        reasoning_effort => 'low', response_format => { type => 'json_object'},
        tools => [ { type => 'function', function => { name => 'f' } } ],
        verbosity => 'low', unknown => { a => 1 }, model => 'other',
        parallel_tool_calls => JSON::PP::true,
    );

    for my $name (sort keys %more) {
        my $body = { %$base, $name => $more{$name} };

        is_state(post($openai, $body), 'MISS', "$name: another one");
        is_state(post($openai, $body), 'HIT', '... the same');
    }

    is_state(post($openai, $base), 'HIT', 'without all that');
    is_state(post($anthropic, $base), 'HIT', '... in the other dialect');

    my $exact = { %$base, unknown => 1 };

    is_state(post($openai, $exact), 'MISS', 'what one dialect has');
    is_state(post($anthropic, $exact), 'MISS', '... is another in the other');
    is_state(post($openai, { %$exact, stream => JSON::PP::true }), 'MISS',
             '... and in another mode');
    is_state(post($openai, { %$exact, stream => JSON::PP::true }), 'HIT',
             '... where it is found again');
    is_state(post($openai, $exact), 'HIT', '... as in its own');

    is_state(post($anthropic, $base, 'anthropic-beta' => 'x-1'), 'MISS',
             'a header that changes the answer');
    is_state(post($anthropic, $base, 'anthropic-beta' => 'x-1'), 'HIT',
             '... the same');
}


sub text {
    my ($r, $stream) = @_;

    return $r->text if $stream;

    my $j = $r->json;

    return $j->{choices} ? $j->{choices}[0]{message}{content}
                         : $j->{content}[0]{text};
}

# the same bytes, which a worker knows without reading them: all else counts

{
    my $body = '{"model":"m","max_tokens":50,"temperature":0.5,"messages":['
               . '{"role":"user","content":"the same bytes"},'
               . '{"role":"assistant","content":"again?"},' x 15
               . '{"role":"user","content":"again"}]}';

    # more of them than workers, so that each has seen some

    my $twice = sub {
        my ($first, $name, @args) = @_;

        is_state(post(@args), $first, "$name: the first time");
        is_state(post(@args), $first eq 'MISS' ? 'HIT' : $first, '... again')
            for 1 .. 3;
    };

    $twice->('MISS', 'the same bytes', $openai, $body);

    (my $other = $body) =~ s/again"/agaim"/;
    $twice->('MISS', 'one byte of the body', $openai, $other);

    $twice->('MISS', 'a header', $openai, $body, 'openai-beta' => 'x');
    $twice->('MISS', 'another value', $openai, $body, 'openai-beta' => 'y');
    $twice->('MISS', 'a tenant', '/tenant/chat/completions', $body,
             'X-Tenant' => 'a');
    $twice->('MISS', 'another tenant', '/tenant/chat/completions', $body,
             'X-Tenant' => 'b');
    $twice->('MISS', 'vary', '/vary/chat/completions', $body,
             'X-Vary' => '1');
    $twice->('MISS', 'another value', '/vary/chat/completions', $body,
             'X-Vary' => '2');
    $twice->('MISS', 'another operation', '/v1/completions', $body);

    $twice->('HIT', 'the other dialect', $anthropic, $body);
    $twice->('HIT', 'no value of vary', '/vary/chat/completions', $body);

    $twice->('BYPASS', 'a location for temperature 0 only',
             '/sure/chat/completions', $body);
    $twice->('BYPASS', 'a location where it has too many values',
             '/small/chat/completions', $body);

    $twice->('HIT', 'the same bytes', $openai, $body);
}


# 10,000 requests of 100 tenants, which all have the same 20 questions: what
# comes back is what the tenant has got before

{
    my ($bad, $hits, $n) = (0, 0, 10_000);
    my $until = time() + 300;
    my @clients = map { $gw->client } 1 .. 4;
    my %asked;

    srand(20261121);
    $p->reset;

    for my $i (1 .. $n) {
        my $tenant = int(rand(100));
        my $question = int(rand(20));
        my $stream = rand() < 0.5;
        my $dialect = rand() < 0.5;
        my $r = $clients[$i % 4]->post(
            $dialect ? '/tenant/chat/completions' : '/tenant/messages',
            { model => 'm', max_tokens => 9, $stream
              ? (stream => JSON::PP::true) : (),
              messages => [ { role => 'user',
                              content => "question $question" } ] },
            headers => [ 'X-Tenant' => "tenant$tenant" ]);

        my $state = $r->{headers}{'x-ai-cache'} // 'none';
        my $text = $r->{status} == 200 ? text($r, $stream) : '';
        my $id = "$tenant/$question";

        if ($state eq 'HIT') {
            $hits++;

        } else {
            $asked{$id} //= $text;
        }

        if ($text eq '' || $text ne ($asked{$id} // '')) {
            $bad++;
            diag("request $i of $id: $r->{status} $state $text")
                if $bad < 5;
        }

        if (time() > $until) {
            diag("only $i requests in time");
            $n = $i;
            last;
        }
    }

    is($bad, 0, "$n requests of 100 tenants: each has its tenant's answer");
    is(scalar keys %{ { reverse %asked } }, scalar keys %asked,
       '... which no other has');
    cmp_ok($hits, '>', $n * 0.7, "... $hits hits");
    is(scalar($p->log), $n - $hits, '... all others were asked for');
    is($n - $hits, scalar keys %asked, '... once for each tenant');
}

$gw->finish;
done_testing();
