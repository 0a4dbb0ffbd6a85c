#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# With overrun=cut a provider is asked for no more than what is left: its
# max_tokens is lowered, in whatever dialect it is asked, and never raised.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use AI::Kit;
use AI::Gateway;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'no module of limits'
    if AI::Gateway::modules() && !grep { /ratelimit/ } AI::Gateway::modules();

my $p = provider();
my $url = $p->url;

my $gw = gateway(<<"END", server => <<'END2');
    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_provider q { dialect openai; endpoint $url; key none;
                    max_output 200; }
    ai_provider openai { endpoint $url; key none; }
    ai_provider a { dialect anthropic; endpoint $url; key none; }
    ai_model m      { target p/n:5; price in=1 out=10; }
    ai_model most   { target q/n:5; }
    ai_model vendor { target openai/n:5; }
    ai_model claude { target a/n:5; }
    ai_model param  { target p/n:5; params max_tokens=3000; }
    ai_model force  { target p/n:5; params force max_tokens=3000; }
    ai_model small  { target p/n:5; params force max_tokens=7; }
    ai_model again  { target p/n:600+cut:100; fallback a/n:5;
                      recover restart; }

    ai_quota_zone \$http_x_key zone=day tokens=\$http_x_limit;
    ai_quota_zone \$http_x_key zone=money usd=\$http_x_usd;
END
    location /cut/    { ai_quota day overrun=cut; ai_pass model; }
    location /finish/ { ai_quota day; ai_pass model; }
    location /dry/    { ai_quota day overrun=cut; ai_dry_run quota;
                        ai_pass model; }
    location /money/  { ai_quota money overrun=cut; ai_pass model; }
END2

my $n = 0;

# the body that the provider got, and the answer

sub asked {
    my ($model, %body) = @_;
    my $where = delete $body{_where} // 'cut';
    my $end = delete $body{_path} // 'chat/completions';
    my $limit = delete $body{_limit} // '1000/day';
    my $who = delete $body{_key} // 'k' . ++$n;

    $p->reset;
    my $r = $gw->client->post("/$where/v1/$end", chat($model, %body),
                              headers => [ 'X-Key' => $who,
                                  'X-Limit' => $where eq 'money' ? ''
                                                                 : $limit,
                                  'X-Usd' => $limit ]);
    my ($e) = $p->log;

    return ($e ? JSON::PP::decode_json($e->{body}) : undef, $r);
}

# 2 tokens are asked with, and a few are counted for the rest of a message

sub near {
    my ($got, $limit, $name) = @_;
    cmp_ok($got // 0, '<=', $limit, "$name: no more than that");
    cmp_ok($got // 0, '>', $limit - 25, "$name: ... and not much less");
}

my ($b, $r) = asked('m', max_tokens => 5000);
is($r->{status}, 200, 'max_tokens above what is left');
near($b->{max_tokens}, 1000, 'lowered');
ok(!exists $b->{max_completion_tokens}, '... by the name that was used');

($b) = asked('m', max_completion_tokens => 5000);
near($b->{max_completion_tokens}, 1000, 'max_completion_tokens');
ok(!exists $b->{max_tokens}, '... by the name that was used');

($b) = asked('m', max_completion_tokens => 5000, max_tokens => 10);
near($b->{max_completion_tokens}, 1000, 'both');
is($b->{max_tokens}, 10, '... the one that is below is kept');

($b) = asked('m', max_tokens => 50);
is($b->{max_tokens}, 50, 'never raised');

($b) = asked('m');
near($b->{max_tokens}, 1000, 'none was given');

($b) = asked('m', stream => 1, max_tokens => undef);
near($b->{max_tokens}, 1000, 'null, of a stream');

($b) = asked('m', _limit => '1m/day');
ok(!exists $b->{max_tokens}, 'none is added where much is left');

($b) = asked('most');
is($b->{max_tokens}, undef, 'nor above max_output of the provider');

($b) = asked('vendor');
near($b->{max_completion_tokens}, 1000, 'the name that OpenAI takes');

($b) = asked('m', _path => 'completions', prompt => 'Hello');
near($b->{max_tokens}, 1000, 'legacy completions');

($b) = asked('m', n => 4, max_tokens => 500);
near($b->{max_tokens}, 250, 'each of four choices');

# parameters of the model

($b) = asked('param');
near($b->{max_tokens}, 1000, 'a default');
($b) = asked('param', max_tokens => 20);
is($b->{max_tokens}, 20, 'a default, and a value');
($b) = asked('force', max_tokens => 20);
near($b->{max_tokens}, 1000, 'a forced one');
($b) = asked('small', max_tokens => 5000);
is($b->{max_tokens}, 7, 'a small one');

# other dialects

($b) = asked('claude', _path => 'messages', max_tokens => 5000);
near($b->{max_tokens}, 1000, 'messages');

($b) = asked('claude');
near($b->{max_tokens}, 1000, 'chat of claude');

($b) = asked('m', _path => 'messages', max_tokens => 5000);
near($b->{max_tokens}, 1000, 'messages of a chat model');

my %think = (thinking => { type => 'enabled', budget_tokens => 4096 });

($b) = asked('claude', _path => 'messages', max_tokens => 8000, %think,
             _limit => '3000/day');
near($b->{max_tokens}, 3000, 'thinking');
near($b->{thinking}{budget_tokens}, 1500, '... a budget below it');

($b) = asked('claude', _path => 'messages', max_tokens => 8000, %think);
is_deeply($b->{thinking}, { type => 'disabled' }, 'no room for thinking');

($b) = asked('claude', _path => 'messages', max_tokens => 8000, %think,
             _limit => '7000/day');
is($b->{thinking}{budget_tokens}, 4096, 'thinking that has room');

# what was made before is no more to be had

$p->reset;
$r = $gw->client->open('/cut/v1/chat/completions', chat('again', stream => 1,
         max_tokens => 5000), headers => [ 'X-Key' => 'again',
                                           'X-Limit' => '1000/day' ]);
$r->finish;
my @log = map { JSON::PP::decode_json($_->{body}) } $p->log;
cmp_ok(scalar @log, '>', 1, 'another attempt');
cmp_ok($log[-1]{max_tokens}, '<', $log[0]{max_tokens} - 50,
       '... has what the first one has left');

# money

($b) = asked('m', _where => 'money', _limit => '0.005/day',
             max_tokens => 5000);
near($b->{max_tokens}, 500, 'money');

# elsewhere it is the client's

($b) = asked('m', _where => 'finish', max_tokens => 5000);
is($b->{max_tokens}, 5000, 'overrun=finish');
($b) = asked('m', _where => 'dry', max_tokens => 5000);
is($b->{max_tokens}, 5000, 'dry run');

# nothing is left of an answer

($b, $r) = asked('m', max_tokens => 5000, _limit => '3/day');
is($r->{status}, 429, 'no room for a token');
is($b, undef, '... nobody is asked');
is($r->json->{error}{type}, 'insufficient_quota', '... type');
is($r->{headers}{'retry-after'}, undef, '... waiting does not help');
is($r->{headers}{'x-should-retry'}, 'false', '... told');

($b, $r) = asked('m', n => 100, max_tokens => 1, _limit => '60/day');
is($r->{status}, 429, 'less than a token for each choice');

($b, $r) = asked('claude', _path => 'messages', max_tokens => 5000,
                 _limit => '3/day');
is($r->json->{error}{type}, 'rate_limit_error', 'messages');

($b, $r) = asked('m', max_tokens => 0, _limit => '1000/day', _key => 'zero');
is($b->{max_tokens}, 0, 'none is wanted');

# used up by answers that are not streamed: nothing is overdrawn when the
# provider keeps to it

my $sum = 0;

for (1 .. 200) {
    ($b, $r) = asked('m', max_tokens => 300, _limit => '2000/day',
                     _key => 'whole');
    last if $r->{status} != 200;
    cmp_ok($b->{max_tokens}, '<=', 2000 - $sum, 'what is left')
        if $b->{max_tokens} < 300;
    $sum += $r->json->{usage}{total_tokens};
}

is($r->{status}, 429, 'used up');
cmp_ok($sum, '<=', 2000, '... and not more');

ok($gw->finish, 'clean');

done_testing();
