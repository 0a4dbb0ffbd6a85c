#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Streams under limits: topped up while they run; with overrun=cut they end
# properly with the last token that there is, with overrun=finish they go on
# in debt.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Time::HiRes qw(time sleep);

use AI::Kit;
use AI::Gateway;
use AI::Provider;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'no module of limits'
    if AI::Gateway::modules() && !grep { /ratelimit/ } AI::Gateway::modules();

my $p = provider();
my $url = $p->url;

# legacy completions, several choices, tool calls

my $other = AI::Provider->start(handler => sub {
    my ($req) = @_;
    my @events;
    my $chunk = sub {
        push @events, 'data: ' . encode({ id => 'x-1', created => 1,
            model => 'x', object => $_[0], choices => [ $_[1] ] }) . "\n\n";
    };

    if ($req->{path} =~ m{/chat/completions}) {
        if ($req->{json}{model} eq 'tool') {
            $chunk->('chat.completion.chunk', { index => 0,
                finish_reason => undef, delta => { role => 'assistant',
                content => undef, tool_calls => [ { index => 0, id => 'c1',
                type => 'function', function => { name => 'f',
                arguments => '' } } ] } });
            $chunk->('chat.completion.chunk', { index => 0,
                finish_reason => undef, delta => { tool_calls => [
                { index => 0, function => { arguments => '{"a":123},' } } ]
                } }) for 1 .. 500;

        } else {
            for my $i (1 .. 500) {
                $chunk->('chat.completion.chunk', { index => $i % 3,
                    finish_reason => undef, delta => { content => "w$i " } });
            }
        }

    } else {
        $chunk->('text_completion', { index => 0, text => "w$_ ",
            logprobs => undef, finish_reason => undef }) for 1 .. 500;
    }

    push @events, "data: [DONE]\n\n";

    return sse_script(\@events);
});
my $other_url = $other->url;

my $gw = gateway(<<"END", workers => 2, server => <<'END2');
    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_provider a { dialect anthropic; endpoint $url; key none; }
    ai_provider o { dialect openai; endpoint $other_url; key none; }
    ai_model long    { target p/n:600; price in=1 out=10; }
    ai_model claude  { target a/n:600; }
    ai_model short   { target p/n:20; price in=1 out=10; }
    ai_model slow    { target p/n:600+pace:5; }
    ai_model hang    { target p/n:600+stall:30; }
    ai_model again   { target p/n:600+cut:100; fallback p/n:600;
                       recover restart; }
    ai_model tool    { target o/tool; }
    ai_model choices { target o/choices; }
    ai_model legacy  { target o/legacy; }
    ai_model nousage { target p/n:600+nousage; }

    ai_quota_zone \$http_x_key zone=day tokens=400/day;
    ai_quota_zone \$http_x_key zone=money usd=0.005/month;
    ai_quota_zone all zone=many tokens=20k/day;
    ai_quota_zone all zone=many_finish tokens=20k/day;
    ai_limit_zone \$http_x_key zone=rate tokens=400/day;
END
    location /cut/    { ai_quota day overrun=cut; ai_pass model; }
    location /finish/ { ai_quota day; ai_pass model; }
    location /dry/    { ai_quota day overrun=cut; ai_dry_run quota;
                        ai_pass model; }
    location /money/  { ai_quota money overrun=cut; ai_pass model; }
    location /rate/   { ai_limit rate; ai_pass model; }
    location /many/   { ai_quota many overrun=cut; ai_pass model; }
    location /many2/  { ai_quota many_finish; ai_pass model; }
    location = /limits { ai_limit_view; }
END2

my $n = 0;
my $path;

sub ask {
    my ($where, $who, $model, %body) = @_;
    my $end = delete $body{_path} // 'chat/completions';

    $path = "/$where/v1/$end?" . ++$n;
    my $s = $gw->client->open($path, chat($model, stream => 1,
                                          max_tokens => 5000, %body),
                              headers => [ 'X-Key' => $who ]);
    $s->finish;

    return $s;
}

sub state_of {
    my ($zone, $who) = @_;
    my $e;

    $gw->wait_for(sub {
        my $z = $gw->client->get("/limits?zone=$zone&key=$who&check=1")
                   ->json->{zones}[0];
        $e = $z->{entries}[0] // { holds => 0 };
        return $z->{consistent} && $e->{holds} == 0;
    }, 3) or fail("$zone: something is held");

    return $e;
}

# used up, but for less than the next piece of the answer

sub full {
    my ($used, $name) = @_;
    cmp_ok($used, '<=', 400, "$name: no more than there is");
    cmp_ok($used, '>', 390, "$name: and all of it");
}

sub data { map { $_->{data} } @{ $_[0]{events} } }

# OpenAI's own, relayed byte for byte until it is cut

my $r = ask('cut', 'a', 'long', stream_options => { include_usage => \1 });
my @data = data($r);
my $s = state_of('day', 'a')->{tokens};
my $log = settled($gw, $path);

is($r->{status}, 200, 'cut');
is($data[-1], '[DONE]', '... ends properly');
like($data[-3], qr/"finish_reason":"length"/, '... as one at its length');
my ($in, $out, $sum) = $data[-2]
    =~ /"prompt_tokens":(\d+),"completion_tokens":(\d+),"total_tokens":(\d+)/;
full($sum, '... usage: all that there was');
is($s->{used}, $sum, '... is what is charged');
is($s->{held}, 0, '... nothing is held');
is("$log->{finish_reason} $log->{usage_state} $log->{output_tokens}",
   "length counted $out", '... log');
is($log->{error}, '', '... no error');
like($r->text, qr/^w1 w2 .* w\d+ ?$/, '... the beginning of the answer');
ok($p->wait_log(sub { $_[-1]{hangup} || $_[-1]{end} }, 2),
   '... the provider is left');
is(scalar(grep { (JSON::PP::decode_json($_))->{id} ne 'chatcmpl-1' }
          grep { /^\{/ } @data), 0, '... by one answer\'s id');

$r = ask('cut', 'a', 'short');
is($r->{status}, 429, 'the next one');
is($r->json->{error}{type}, 'insufficient_quota', '... type');
like($r->json->{error}{message}, qr/^Quota\ "day"\ reached:\ limit\ 400\ tokens
     \ per\ day,\ used\ (39\d|400),\ requested\ \d+,\ remaining\ \d\.\ Please\ try\ again
     \ in\ .*s\.$/x, '... message');
is($r->{headers}{'x-should-retry'}, 'false', '... not to be tried again soon');

# without the usage that nobody has asked for

$r = ask('cut', 'b', 'long');
@data = data($r);
is($data[-1], '[DONE]', 'cut, no usage asked for');
like($data[-2], qr/"finish_reason":"length"/, '... last chunk');
is(scalar(grep { /"usage":\{/ } @data), 0, '... none told');
full(state_of('day', 'b')->{tokens}{used}, '... used');

# an answer that fits is as the provider's

$r = ask('cut', 'c', 'short');
is($r->text, join(' ', map { "w$_" } 1 .. 20), 'one that fits');
like((data($r))[-2], qr/"finish_reason":"stop"/, '... is not cut');

# other dialects

for my $pair ([ 'messages', 'claude' ], [ 'messages', 'long' ]) {
    my ($end, $model) = @$pair;

    $r = ask('cut', "$end$model", $model, _path => $end);
    my @e = map { $_->{event} // $_->{name} // '' } @{ $r->{events} };
    @data = data($r);
    is($r->{status}, 200, "cut, $end of $model");
    like($data[-1], qr/"message_stop"/, '... message_stop');
    like($data[-2], qr/"message_delta".*"stop_reason":"max_tokens"/,
         '... stop_reason');
    like($data[-3], qr/"content_block_stop"/, '... the block is closed');
    like($data[-2], qr/"output_tokens":\d+/, '... usage');
    cmp_ok(state_of('day', "$end$model")->{tokens}{used}, '<=', 400,
           '... no more than there was') if $model eq 'long';
}

$r = ask('cut', 'x', 'claude');
@data = data($r);
is($data[-1], '[DONE]', 'cut, chat of claude');
like($data[-2], qr/"finish_reason":"length"/, '... last chunk');

$r = ask('cut', 'tool', 'tool');
@data = data($r);
is($data[-1], '[DONE]', 'cut, tool call');
like($data[-2], qr/"finish_reason":"length"/, '... last chunk');
full(state_of('day', 'tool')->{tokens}{used}, '... used');

$r = ask('cut', 'choices', 'choices', n => 3);
@data = data($r);
is($data[-1], '[DONE]', 'cut, three choices');
is(scalar(grep { /"finish_reason":"length"/ } @data), 3, '... all end');
full(state_of('day', 'choices')->{tokens}{used}, '... used');

$r = ask('cut', 'legacy', 'legacy', _path => 'completions', prompt => 'x');
@data = data($r);
is($data[-1], '[DONE]', 'cut, legacy completions');
like($data[-2], qr/"object":"text_completion".*"finish_reason":"length"/,
     '... last chunk');
full(state_of('day', 'legacy')->{tokens}{used}, '... used');

# goes on after a provider has died, and both count

$r = ask('cut', 'again', 'again');
@data = data($r);
is($data[-1], '[DONE]', 'cut, in a second attempt');
$log = settled($gw, $path);
is($log->{attempts}, 2, '... it is one');
is($log->{finish_reason}, 'length', '... that was cut');

# finish: all of it, and a debt

$r = ask('finish', 'f', 'long');
is($r->text, join(' ', map { "w$_" } 1 .. 600), 'finish: the whole answer');
cmp_ok(state_of('day', 'f')->{tokens}{used}, '>', 600, '... in debt');
is(ask('finish', 'f', 'short')->{status}, 429, '... the next one is refused');

$r = ask('rate', 'f', 'long');
is($r->text, join(' ', map { "w$_" } 1 .. 600), 'a rate is never cut');
cmp_ok(state_of('rate', 'f')->{tokens}{used}, '>', 600, '... in debt');

$r = ask('dry', 'd', 'long');
is($r->text, join(' ', map { "w$_" } 1 .. 600), 'dry run: not cut');
is(ask('dry', 'd', 'short')->{status}, 200, '... and not refused');

# money

$r = ask('money', 'm', 'long', stream_options => { include_usage => \1 });
@data = data($r);
($in, $out) = $data[-2] =~ /"prompt_tokens":(\d+),"completion_tokens":(\d+)/;
is($data[-1], '[DONE]', 'cut by money');
like($data[-3], qr/"finish_reason":"length"/, '... last chunk');
cmp_ok($in * 1e-6 + $out * 1e-5, '<=', 0.005, '... no more than there is');
cmp_ok($in * 1e-6 + $out * 1e-5, '>', 0.00498, '... and all of that');
is(sprintf('%.6f', state_of('money', 'm')->{usd}{used}),
   sprintf('%.6f', $in * 1e-6 + $out * 1e-5), '... used');

# held while it runs: topped up in steps, settled by its end

my $stream = $gw->client->open('/finish/v1/chat/completions',
                               chat('slow', stream => 1, max_tokens => 20),
                               headers => [ 'X-Key' => 'top' ]);
$stream->event for 1 .. 60;
my $e = $gw->client->get('/limits?zone=day&key=top')
           ->json->{zones}[0]{entries}[0];
is($e->{holds}, 1, 'a running stream holds');
cmp_ok($e->{tokens}{held}, '>=', 256, '... and is topped up');
cmp_ok($e->{tokens}{held}, '<=', 400, '... no more than there is');
$stream->abort;
$s = state_of('day', 'top')->{tokens};
cmp_ok($s->{used}, '>', 50, 'aborted: what was relayed is used');
cmp_ok($s->{used}, '<', 150, '... and nothing else');

# 256 clients on what is enough for few of them

sub many {
    my ($where, $clients) = @_;
    my @s = map { $gw->client->open("/$where/v1/chat/completions",
                                    chat('nousage', stream => 1,
                                         max_tokens => 5000), timeout => 60)
                } 1 .. $clients;
    $_->finish for @s;
    return @s;
}

my @s = many('many', 256);
my %status;
$status{$_->{status}}++ for @s;
$s = state_of('many', 'all')->{tokens};
cmp_ok($s->{used}, '<=', 20000, '256 clients, cut: no token above the budget');
cmp_ok($s->{used}, '>', 19000, '... which is used up');
cmp_ok($status{200}, '>', 20, '... by many');
is(scalar(grep { $_->{status} == 200 && (data($_))[-1] ne '[DONE]' } @s), 0,
   '... all end properly');
note("overshoot with cut: " . ($s->{used} - 20000));

@s = many('many2', 256);
%status = ();
$status{$_->{status}}++ for @s;
$s = state_of('many_finish', 'all')->{tokens};
cmp_ok($s->{used}, '<=', 20000 + $status{200} * 1400,
       '256 clients, finish: a debt of those that were admitted');
note("overshoot with finish: " . ($s->{used} - 20000));

ok(idle_again($gw), 'no connection is left');
ok($gw->finish, 'clean');

done_testing();
