#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# "ai_headers usage_cost": the cost as a member of the usage that clients get,
# relayed and translated, streamed and not.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use AI::Gateway;
use AI::Kit;
use AI::Provider;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'no module of limits'
    if AI::Gateway::modules() && !grep { /ratelimit/ } AI::Gateway::modules();

my $p = provider();
my $url = $p->url;

# bytes of a provider's own, with what is rare in them

my $odd = AI::Provider->start(handler => sub {
    my ($req) = @_;
    my $model = $req->{json}{model};

    return [ [ 'head', 200, { 'Content-Type' => 'application/json' } ],
             [ 'chunk', '{"object":"list","data":[{"object":"embedding",'
                        . '"index":0,"embedding":[' . join(',', (0.25) x 3000)
                        . ']}],"model":"x","usage": {"prompt_tokens":7,'
                        . '"total_tokens":7} }' ], [ 'end' ] ]
        if $req->{path} =~ /embeddings/;

    return json_script(200, { id => 'x', object => 'chat.completion',
               created => 1, model => 'x', choices => [ { index => 0,
               message => { role => 'assistant', content => 'a' },
               finish_reason => 'stop' } ], usage => { prompt_tokens => 10,
               completion_tokens => 20, total_tokens => 30, cost => 77 } })
        if !$req->{json}{stream};

    my $first = "data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\","
                . "\"created\":1,\"model\":\"x\",\"choices\":[{\"index\":0,"
                . "\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}";
    my $last = $model eq 'lines'
               ? "data: {\"id\":\"x\",\"choices\":[],\ndata: \"usage\":{"
                 . "\"prompt_tokens\":10,\ndata: \"completion_tokens\":20}}"
               : "data: {\"id\":\"x\",\"choices\":[],\"usage\":{ "
                 . "\"prompt_tokens\":10, \"completion_tokens\":20,"
                 . "\"cost\" : 77 , \"x\":[{}] }, \"y\":{}}";

    return [ [ 'head', 200, { 'Content-Type' => 'text/event-stream' } ],
             [ 'chunk', "$first\n\n" ], [ 'chunk', "$last\n\n" ],
             [ 'chunk', "data: [DONE]\n\n" ], [ 'end' ] ];
});
my $odd_url = $odd->url;

my $u = 'n:3+usage:1000.500.400.100';
my $price = 'price in=1 out=10 reasoning=20 cached=0.1;';

my $gw = gateway(<<"END", server => <<'END2');
    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_provider a { dialect anthropic; endpoint $url; key none; }
    ai_provider o { dialect openai; endpoint $odd_url; key none; }
    ai_provider text { dialect static; text "made here"; }
    ai_model chat    { target p/$u; $price }
    ai_model claude  { target a/n:3+usage:1000.500; price in=1 out=10; }
    ai_model free    { target p/$u; }
    ai_model second  { target p/status:500; $price
                       fallback a/n:3+usage:1000.500; retry off; }
    ai_model again   { target p/n:600+cut:3; fallback p/n:600+usage:10.20;
                       recover restart; retry off; price in=1 out=1; }
    ai_model told    { target o/own; price in=1 out=1; }
    ai_model lines   { target o/lines; price in=1 out=1; }
    ai_model embed   { target o/embed; price in=1 out=0; }
    ai_model made    { target text/x; }
    ai_model long    { target p/n:600; price in=0 out=1; }
    ai_quota_zone all zone=day tokens=200/day;
END
    location /v1/     { ai_headers usage_cost; ai_pass model direct=on; }
    location /no/     { ai_headers cost; ai_pass model direct=on; }
    location /cut/    { ai_headers usage_cost; ai_quota day overrun=cut;
                        ai_pass model direct=on; }
END2

my $n = 0;
my $usage = { stream_options => { include_usage => \1 } };

# what is told of the usage, and what the log says

sub costs {
    my ($model, %opt) = @_;
    my $path = ($opt{where} // '/v1') . '/' . ($opt{end} // 'chat/completions')
               . '?' . ++$n;
    my $r = $gw->client->post($path, chat($model, max_tokens => 5000,
                                          %{ $opt{body} // {} }));
    my $log = settled($gw, $path);
    my @all = map { $_ // 'none' } $r->{body} =~ /"cost" ?: ?([0-9.]+)/g;

    return ($r, $log, @all);
}

sub told {
    my ($name, $cost, $model, %opt) = @_;
    my ($r, $log, @all) = costs($model, %opt);

    is($r->{status}, 200, $name);
    is_deeply(\@all, [ $cost ], "$name: cost, once")
        or diag($r->{body});
    is($log->{cost}, $cost, "$name: as it is charged");

    return $r;
}

my @all;
my @end = (end => 'messages');
my @stream = (body => { stream => 1, %$usage });
my $cost = '0.006640000';
my $r = told('chat', $cost, 'chat');

# byte for byte but for it

my ($plain) = costs('chat', where => '/no');
(my $without = $r->{body}) =~ s/,"cost":[0-9.]+//;
is($without, $plain->{body}, '... and nothing else is changed');
is($r->{headers}{'x-ai-cost'}, undef, '... not in a header');

$r = told('chat, stream', $cost, 'chat', @stream);
($plain) = costs('chat', @stream, where => '/no');
($without = $r->{body}) =~ s/,"cost":[0-9.]+//;
is($without, $plain->{body}, '... and nothing else is changed');

(undef, undef, @all) = costs('chat', body => { stream => 1 });
is(scalar @all, 0, 'stream, no usage asked for');

told('messages', '0.006000000', 'claude', @end);
$r = told('messages, stream', '0.006000000', 'claude', @end,
          body => { stream => 1 });
like($r->{body}, qr/"message_delta".*"usage":\{[^}]*"cost":0\.006/,
     '... in message_delta');

told('chat of claude', '0.006000000', 'claude');
told('chat of claude, stream', '0.006000000', 'claude', @stream);
told('messages of chat', $cost, 'chat', @end);
$r = told('messages of chat, stream', $cost, 'chat', @end,
          body => { stream => 1 });
like($r->{body}, qr/"message_delta".*"usage":\{.*"cost":0\.00664/,
     '... in message_delta');

told('second target', '0.006000000', 'second');

# a provider's own figure is what the gateway pays, if anything

$r = told('its own', '0.000030000', 'told');
$r = told('its own, stream', '0.000030000', 'told', @stream);
like($r->{body}, qr/"cost" : 0\.000030000 , "x":\[\{\}\] \}, "y":\{\}\}\n\n/,
     '... in its place');

$r = told('several lines', '0.000030000', 'lines', @stream);
is(scalar(grep { /^data: / } split /\n/, $r->{body}), 3, '... become one');
is((JSON::PP::decode_json(($r->{body} =~ /data: (.*usage.*)/)[0]))
       ->{usage}{completion_tokens}, 20, '... which is JSON');

$r = told('embeddings', '0.000007000', 'embed', end => 'embeddings',
          body => { input => 'x' });
is(scalar @{ $r->json->{data}[0]{embedding} }, 3000, '... as they were');

# in two attempts: both are paid

my $log;
($r, $log, @all) = costs('again', @stream);
is($log->{attempts}, 2, 'two attempts');
is_deeply(\@all, [ $log->{cost} ], '... cost of both');

# cut

($r, $log, @all) = costs('long', @stream, where => '/cut');
is($log->{finish_reason}, 'length', 'cut');
is_deeply(\@all, [ $log->{cost} ], '... cost');
cmp_ok($all[0], '>', 0, '... of what was relayed');

# no price, no cost; of what is made here, none

(undef, $log, @all) = costs('free');
is(scalar @all, 0, 'no price');

for my $end ('chat/completions', 'messages', 'completions', 'embeddings') {
    (undef, undef, @all) = costs('made', end => $end, body => {
        $end eq 'embeddings' ? (input => 'x') : (prompt => 'x') });
    is(scalar @all, 1, "made here, $end");
    is($all[0] + 0, 0, '... 0');
}

ok($gw->finish, 'clean');

done_testing();
