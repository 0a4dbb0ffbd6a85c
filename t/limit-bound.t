#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Where rates have plenty left, the length of a request is held instead of a
# count of its tokens: what is held, what clients are told, what is used.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use AI::Kit;
use AI::Gateway;
use AI::Live qw(within);

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'no module of limits'
    if AI::Gateway::modules() && !grep { /ratelimit/ } AI::Gateway::modules();

my $p = provider();
my $url = $p->url;

# what comes back meanwhile is nothing: rates of a day

my $gw = gateway(<<"END", server => <<'END2');
    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_provider s { dialect static; text "one two three"; }
    ai_model m      { target p/usage:10.20; }
    ai_model slow   { target p/wait:2000+usage:10.20; }
    ai_model bad    { target p/status:400; }
    ai_model static { target s/x; }
    ai_limit_zone \$http_x_key zone=much tokens=100k/day;
    ai_limit_zone \$http_x_key zone=input input_tokens=100k/day;
    ai_limit_zone \$http_x_key zone=few  tokens=2000/day;
    ai_quota_zone \$http_x_key zone=day  tokens=100k/day;
END
    location /much/  { ai_limit much; ai_pass model; }
    location /input/ { ai_limit much input; ai_pass model; }
    location /few/   { ai_limit few; ai_pass model; }
    location /both/  { ai_limit much few; ai_pass model; }
    location /day/   { ai_limit much; ai_quota day; ai_pass model; }
    location /ietf/  { ai_limit much; ai_headers ietf; ai_pass model; }
    location = /limits { ai_limit_view; }
END2

my $words = 'word ' x 200;

sub request {
    my ($where, $key, $model, %body) = @_;

    $body{max_tokens} = 50;
    $body{messages} = [ { role => 'user', content => $words } ];

    return ("/$where/v1/chat/completions", chat($model, %body),
            headers => [ 'X-Key' => $key ]);
}

sub ask { return $gw->client->post(request(@_)) }

sub left { return $_[0]{headers}{'x-ratelimit-remaining-tokens'} }

sub state_of {
    my ($zone, $key) = @_;
    my $v = $gw->client->get("/limits?zone=$zone&key=$key")->json;
    my ($e) = @{ $v->{zones}[0]{entries} };
    return $e ? $e->{tokens} // $e->{input_tokens} : { used => 0, held => 0 };
}

# what a request holds in a zone while it runs

sub held {
    my ($where, $zone, $key, %body) = @_;
    my $c = $gw->client->open(request($where, $key, 'slow', %body));
    my $held = 0;

    within(sub { $held = state_of($zone, $key)->{held} }, 5);

    $c->finish;

    return ($held, $c);
}

my ($held, $r) = held('much', 'much', 'a');
cmp_ok($held, '>', 1000, 'the length is held');
cmp_ok($held, '<', 1300, '... and the output');
is($r->{status}, 200, '... an answer');
is(left($r), 100000 - 10 - 50, '... which tells of the input that was used');
ok(within(sub { state_of('much', 'a')->{held} == 0 }, 5), '... settled');
cmp_ok(state_of('much', 'a')->{used}, '<=', 30, '... as it was used');
cmp_ok(state_of('much', 'a')->{used}, '>=', 20, '... and not less');

($held) = held('much', 'much', 'b', stream => \1);
cmp_ok($held, '<', 400, 'a stream: counted');
cmp_ok($held, '>', 200, '... so it is');

($held, $r) = held('few', 'few', 'c');
cmp_ok($held, '<', 400, 'not much is left: counted');
is(left($r), 2000 - $held, '... and told');

($held) = held('both', 'much', 'd');
cmp_ok($held, '>', 1000, 'of two zones: the one that has much');
ok(within(sub { state_of('much', 'd')->{held} == 0 }, 5), '... settled');
($held, $r) = held('both', 'few', 'e');
cmp_ok($held, '<', 400, '... the one that has not');
is(left($r), 2000 - $held, '... is the one to tell of');

($held) = held('day', 'day', 'f');
cmp_ok($held, '<', 400, 'a quota: counted');
($held) = held('day', 'much', 'g');
cmp_ok($held, '<', 400, '... for all zones');

($held, $r) = held('input', 'input', 'h');
cmp_ok($held, '>', 1000, 'input_tokens');

$r = ask('much', 'i', 'bad');
is($r->{status}, 400, 'an error');
is(left($r), 100000 - 50, '... has used no input');

$r = ask('much', 'j', 'static');
is($r->{status}, 200, 'a provider of the gateway');
cmp_ok(left($r), '>', 100000 - 400, '... counts');
cmp_ok(left($r), '<', 100000 - 200, '... what it has used');

$r = ask('ietf', 'k', 'm');
is($r->{headers}{ratelimit} =~ /"much-tokens";r=(\d+)/ && $1,
   100000 - 10 - 50, 'RateLimit');

# all that is there can be used

my $n = 0;
$n++ while $n < 20 && ask('few', 'l', 'm')->{status} == 200;
cmp_ok($n, '>=', 20, 'small answers: none is refused for its length');

done_testing();
