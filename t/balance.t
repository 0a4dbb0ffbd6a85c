#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Who is asked: weights, if=, direct=, aliases, the variable of ai_pass,
# ai_fallback and its inheritance, static as the last resort.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use AI::Kit;
use AI::Gateway;
use AI::Provider;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

my $p = provider();
my $url = $p->url;

my $gw = gateway(<<"END", server => <<'SERVER');
    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_provider q { dialect openai; endpoint $url; key none; }
    ai_provider a { dialect anthropic; endpoint $url; key none; }
    ai_provider canned { dialect static; text "Come back later."; }

    map \$http_x_team \$is_red  { red 1; blue 0; default ""; }
    map \$http_x_team \$is_blue { blue yes; default 0; }
    map \$http_x_to \$to { default \$http_x_to; "" model; }

    ai_model weighted { target p/n:1 weight=3; target q/n:2; }
    ai_model equal    { target p/n:1; target p/n:2; target p/n:3; }
    ai_model failing  { target p/status:500 weight=3; target q/n:2;
                        fallback q/n:3; retry off; }
    ai_model order    { target p/status:500;
                        fallback q/status:503 p/status:502;
                        fallback q/n:4; retry off; }
    ai_model team     { target p/n:1 if=\$is_red; target p/n:2 if=\$is_blue;
                        fallback p/n:3 if=\$is_red; }
    ai_model teams    { target p/n:1 if=\$is_red; fallback q/n:4; }
    ai_model plain    { target p/n:1; }
    ai_model down     { target p/status:500; retry off; }
    ai_model down2    { target p/status:500; retry off; fallback q/n:3; }
    ai_model refuse   { target p/status:400; retry off; }
    ai_model canned   { target p/status:500; retry off; fallback canned/x; }
    ai_model same     { target p; target q; }
    ai_model p/named  { target q/n:5; }
    ai_model claude   { target a/n:2; }

    ai_alias alias  plain;
    ai_alias p/alias plain;
    ai_alias fails  down2;
    ai_fallback q/n:7;
END
    location /v1/        { ai_pass model; }
    location /direct/    { ai_pass model direct=on; }
    location /to/        { ai_pass $to; }
    location /todirect/  { ai_pass $to direct=on; }
    location /provider/  { ai_pass p; }
    location /own/       { ai_fallback canned/x; ai_pass model;
                           location /own/nested/ { ai_pass model; } }
    location /off/       { ai_fallback off; ai_pass model;
                           location /off/own/ { ai_fallback q/n:8;
                                                ai_pass model; } }
    location /two/       { ai_fallback q/status:503 on=5xx;
                           ai_fallback canned/x; ai_pass model; }
    location /on/        { ai_fallback canned/x on=429; ai_pass model; }
SERVER

my $n = 0;

# "status target" of a chat at this place

sub at {
    my ($where, $model, %opt) = @_;
    my $path = "/$where/chat/completions?" . ++$n;
    my $r = $gw->client->post($path, chat($model),
                              headers => $opt{headers} // []);
    my $log = settled($gw, $path) // {};

    return wantarray ? ($r, $log) : "$r->{status} $log->{target}";
}

# weights; the bounds are six standard deviations away

my %count;
my $client = $gw->client(headers => [ Connection => 'close' ]);

sub share {
    my ($model, $n) = @_;

    %count = ();
    $count{ $client->post('/v1/chat/completions', chat($model))
                   ->json->{choices}[0]{message}{content} // '' }++
        for 1 .. $n;
}

share('weighted', 400);
cmp_ok($count{w1}, '>', 248, "3:1, the first: $count{w1}");
cmp_ok($count{w1}, '<', 352, '... not more');
is($count{w1} + $count{'w1 w2'}, 400, '... the second has the rest');

share('equal', 300);
cmp_ok($count{$_} // 0, '>', 51, "equal: $_ " . ($count{$_} // 0))
    for 'w1', 'w1 w2', 'w1 w2 w3';

share('failing', 20);
is_deeply(\%count, { 'w1 w2' => 20 },
          'another target is asked before a fallback');

$p->reset;
is(at('v1', 'order'), '200 q/n:4', 'fallbacks');
is_deeply([ requests($p) ], [ qw(status:500 status:503 status:502 n:4) ],
          '... in their order');

# if=

is(at('v1', 'team', headers => [ 'X-Team' => 'red' ]), '200 p/n:1', 'if=: 1');
is(at('v1', 'team', headers => [ 'X-Team' => 'blue' ]), '200 p/n:2',
   'if=: a word, and 0 of the other');
is(at('v1', 'teams'), '200 q/n:4', 'if= is empty: the fallback');
is(at('v1', 'team'), '200 q/n:7', 'none left: that of the server');

my ($r) = at('off', 'team');
is($r->{status}, 404, 'none at all');
like($r->json->{error}{message}, qr/"team" has no target for this request/,
     '... says so');

# direct=

is(at('direct', 'p/n:3'), '200 p/n:3', 'direct=on');
is(at('direct', 'P/n:3'), '200 p/n:3', '... in whatever case');
is(at('direct', 'p/a/b/c'), '200 p/a/b/c', '... with slashes');
is(at('direct', 'plain'), '200 p/n:1', '... models as well');
is(at('direct', 'p/named'), '200 q/n:5', '... models come first');
is(at('direct', 'p/alias'), '200 p/n:1', '... and aliases');
is(at('direct', 'p/status:500'), '200 q/n:7', '... then ai_fallback');

for my $model ('nobody/x', 'p/', '/x', 'p', 'PLAIN', 'plain ') {
    my ($r) = at('direct', $model);
    is($r->{status}, 404, "direct=on: \"$model\"");
}

for my $model ('p/n:3', 'canned/x') {
    my ($r) = at('v1', $model);
    is($r->{status}, 404, "direct=off: \"$model\"");
    is($r->json->{error}{code}, 'model_not_found', '... code');
}

is(at('v1', 'p/named'), '200 q/n:5', '... but a model is called so');

($r) = at('direct', 'canned/x');
is($r->json->{choices}[0]{message}{content}, 'Come back later.',
   'direct=on to a static provider');

# aliases

($r, my $log) = at('v1', 'alias');
is("$r->{status} $log->{target}", '200 p/n:1', 'alias');
is("$log->{request_model} $log->{model}", 'alias plain', '... variables');
is($r->{headers}{'x-ai-model'}, 'plain', '... header');
is(at('v1', 'fails'), '200 q/n:3', '... of a model with a fallback');

# a target without a model asks for what the client did

is(at('v1', 'same') =~ s/[pq]/x/r, '200 x/same', 'target without a model');

# ai_pass $variable

is(at('to', 'plain'), '200 p/n:1', 'variable: model');
is(at('to', 'p/n:2') =~ s/ .*//r, '404', '... not direct');
is(at('todirect', 'p/n:2'), '200 p/n:2', '... direct');
is(at('to', 'n:3', headers => [ 'X-To' => 'q' ]), '200 q/n:3',
   'variable: a provider');
is(at('to', 'whatever', headers => [ 'X-To' => 'plain' ]), '200 p/n:1',
   'variable: a model');
is(at('to', 'whatever', headers => [ 'X-To' => 'alias' ]), '200 p/n:1',
   'variable: an alias');

($r, $log) = at('to', 'plain', headers => [ 'X-To' => 'nobody' ]);
is($r->{status}, 404, 'variable: neither');
is($r->json->{error}{message}, 'this route has no model', '... message');
like($gw->error_log, qr/ai_pass evaluates to "nobody"/, '... in the log');

is(at('provider', 'n:3'), '200 p/n:3', 'ai_pass PROVIDER');
is(at('provider', 'plain'), '200 p/plain', '... whatever the model');
is(at('provider', 'status:500'), '200 q/n:7', '... then ai_fallback');

# ai_fallback

is(at('v1', 'down'), '200 q/n:7', 'ai_fallback of http');
is(at('v1', 'down2'), '200 q/n:3', '... after those of the model');
is(at('v1', 'refuse'), '400 ', '... not for a 400');
is(at('own', 'down'), '200 canned/x', '... replaced in a location');
is(at('own/nested', 'down'), '200 canned/x', '... inherited');
is(at('off', 'down'), '500 ', '... off');
is(at('off/own', 'down'), '200 q/n:8', '... on again');
is(at('on', 'down'), '500 ', '... on=');

$p->reset;
is(at('two', 'down'), '200 canned/x', '... two');
is_deeply([ requests($p) ], [ qw(status:500 status:503) ], '... in order');

# a static provider as the last resort, in both dialects

for my $stream (0, 1) {
    my $r = $gw->client->post('/v1/chat/completions',
                              chat('canned', stream => $stream));
    is($stream ? $r->text : $r->json->{choices}[0]{message}{content},
       'Come back later.', 'static last resort');
    is($r->{headers}{'x-ai-provider'}, 'canned', '... provider');

    $r = $gw->client->post('/v1/messages',
                           chat('canned', stream => $stream, max_tokens => 9));
    is($stream ? $r->text : $r->json->{content}[0]{text}, 'Come back later.',
       '... for Anthropic');
}

(undef, $log) = at('v1', 'canned');
is("$log->{fallback} $log->{attempts} $log->{usage_state} $log->{error}",
   '1 2 counted ', '... variables');

$gw->finish;

done_testing();
