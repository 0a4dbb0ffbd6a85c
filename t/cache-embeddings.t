#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Embeddings of several inputs: each is looked for and stored by itself.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP;
use Test::More;
use Time::HiRes qw(time sleep);

use AI::Kit;
use AI::Gateway;
use AI::Provider;
use AI::Redis;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'no module of the cache'
    if AI::Gateway::modules() && !grep { /cache/ } AI::Gateway::modules();

# the vector of an input is its characters; in no order when told so

sub vector {
    my ($input, $base64) = @_;
    my @v = ref $input ? @$input : map { ord() / 4 } split //, $input;

    require MIME::Base64;

    return $base64 ? MIME::Base64::encode_base64(pack('f<*', @v), '') : \@v;
}

sub answer {
    my ($req) = @_;
    my $v = $req->{vars};
    my $json = $req->{json};
    my @inputs = ref $json->{input} ? @{ $json->{input} } : $json->{input};
    my $tokens = 0;

    @inputs = ([ @inputs ]) if @inputs && $inputs[0] =~ /^\d+$/
                               && !ref $inputs[0] && $v->{numbers};

    return [ $v->{wait} ? [ 'sleep', $v->{wait} ] : (),
             @{ json_script($v->{status}, { error => { message => 'no' } }) } ]
        if $v->{status};

    $tokens += ref $_ ? scalar @$_ : length for @inputs;

    my @data = map { { object => 'embedding', index => $_,
                       embedding => vector($inputs[$_],
                           ($json->{encoding_format} // '') eq 'base64') } }
               0 .. $#inputs;

    @data = reverse @data if $v->{reverse};
    pop @data if $v->{less};

    return [ $v->{wait} ? [ 'sleep', $v->{wait} ] : (), @{ json_script(200, {
        object => 'list', data => \@data, model => 'vectors-1',
        usage => { prompt_tokens => $tokens, total_tokens => $tokens } }) } ];
}

my $p = AI::Provider->start(handler => \&answer);
my $url = $p->url;

my $gw = gateway(<<"END", server => <<'END');
    ai_cache_zone vectors 4m;

    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_model e { target p/vectors; price in=1 out=0; }

    ai_cache vectors ttl=1m scope=global;
END
    add_header x-cost $ai_cost always;

    location /v1/     { ai_pass model direct=on; }
    location /plain/  { ai_pass model direct=on; ai_cache off; }
    location /tenant/ { ai_pass model; ai_cache vectors ttl=1m
                        scope=$http_x_tenant; }
    location /small/  { ai_pass model; ai_cache vectors ttl=1m
                        scope=global vary=small max_size=1k; }
    location /bypass/ { ai_pass model; ai_cache_bypass 1; }
    location /none/   { ai_pass model; ai_no_cache 1; }
    location /stale/  { ai_pass model; ai_cache vectors ttl=3s
                        scope=$http_x_tenant stale=1m;
                        ai_cache_use_stale 5xx error; }
    location /update/ { ai_pass model; ai_cache vectors ttl=1s
                        scope=global vary=update stale=1m;
                        ai_cache_use_stale updating; }
    location /alone/  { ai_pass model; ai_cache_lock off; }
END

my $client = $gw->client;

sub ask {
    my ($path, $input, %o) = @_;
    my $headers = delete $o{headers} // [];

    return $client->post("$path/embeddings",
                         { model => 'e', input => $input, %o },
                         headers => $headers);
}

sub is_state {
    my ($r, $state, $name) = @_;
    is("$r->{status} " . ($r->{headers}{'x-ai-cache'} // 'none'),
       "200 $state", $name);
}

# what the provider was asked for since it was reset

sub asked { return [ map { decode_json($_->{body})->{input} } $p->log ] }

sub vectors {
    my ($r) = @_;
    my $j = $r->json;

    is_deeply([ map { $_->{index} } @{ $j->{data} } ],
              [ 0 .. $#{ $j->{data} } ], '... numbered in order');

    return [ map { $_->{embedding} } @{ $j->{data} } ];
}

sub tokens { return $_[0]->json->{usage}{total_tokens} }


# some of them are there

{
    my $r = ask('/v1', [ 'one', 'two' ]);

    is_state($r, 'MISS', 'two inputs');
    is_deeply(asked(), [ [ 'one', 'two' ] ], '... are asked for');
    is_deeply(vectors($r), [ map { vector($_) } qw(one two) ], '... and got');

    is($r->{body}, ask('/plain', [ 'one', 'two' ])->{body},
       '... as the provider has sent them');

    $p->reset;
    $p->set(reverse => 1);

    $r = ask('/v1', [ 'three', 'one', 'fourth', 'two', 'three' ],
             user => 'me');

    is_state($r, 'MISS', 'some of five inputs are there');
    is_deeply(asked(), [ [ 'three', 'fourth' ] ],
              '... and one is there twice: two are asked for');
    is_deeply(vectors($r),
              [ map { vector($_) } qw(three one fourth two three) ],
              '... and all are answered');
    is(tokens($r), 11, '... with the usage of what was asked for');
    is($r->{headers}{'x-cost'}, '0.000011000', '... and its cost');

    is(($p->log)[-1]{body}, '{"input":["three","fourth"],"model":"vectors",'
       . '"user":"me"}', '... all else as it was');

    $p->reset;
    $r = ask('/v1', [ 'fourth', 'three', 'two', 'one' ]);

    is_state($r, 'HIT', 'all are there');
    is_deeply(asked(), [], '... nothing is asked for');
    is_deeply(vectors($r), [ map { vector($_) } qw(fourth three two one) ],
              '... and all are answered');
    is(tokens($r), 17, '... with the usage of all');
    is($r->{headers}{'x-cost'}, '0.000000000', '... for nothing');
    is($r->{headers}{age}, 0, '... and an age');

    $r = ask('/v1', 'three');
    is_state($r, 'HIT', 'one of them alone');
    is_deeply(vectors($r), [ vector('three') ], '... is that one');
    is(tokens($r), 5, '... with its usage');

    is_state(ask('/v1', [ 'two' ]), 'HIT', 'one of them in a list');
    is_state(ask('/v1', [ 'two', 'tw' ]), 'MISS', 'another one is not');

    is_state(ask('/v1', 'alone'), 'MISS', 'one that was asked for alone');

    $p->reset;
    is_state(ask('/v1', [ 'alone', 'one' ]), 'HIT', '... is there in a list');
    is_deeply(asked(), [], '... too');
}


# what else is in the key

{
    $p->set(reverse => 0);

    is_state(ask('/v1', [ 'one', 'two' ], dimensions => 3), 'MISS',
             'other dimensions');
    is_state(ask('/v1', [ 'one', 'two' ], dimensions => 3.0), 'HIT',
             '... the same');

    my $r = ask('/v1', [ 'one', 'two' ], encoding_format => 'base64');
    is_state($r, 'MISS', 'base64');
    $r = ask('/v1', [ 'two', 'one' ], encoding_format => 'base64');
    is_state($r, 'HIT', '... is another form of them');
    is_deeply(vectors($r), [ map { vector($_, 1) } qw(two one) ],
              '... and got as such');

    $p->reset;
    $r = ask('/v1', [ [ 1, 2 ], [ 3 ] ]);
    is_state($r, 'MISS', 'lists of tokens');
    $r = ask('/v1', [ [ 3 ], [ 4, 5 ], [ 1, 2 ] ]);
    is_deeply(asked(), [ [ [ 1, 2 ], [ 3 ] ], [ [ 4, 5 ] ] ],
              '... each by itself');
    is_deeply(vectors($r), [ [ 3 ], [ 4, 5 ], [ 1, 2 ] ], '... in order');

    for my $tenant ('acme', 'globex') {
        is_state(ask('/tenant', [ 'one', 'two' ],
                     headers => [ 'x-tenant', $tenant ]), 'MISS',
                 "$tenant has its own");
        is_state(ask('/tenant', [ 'two', 'one' ],
                     headers => [ 'x-tenant', $tenant ]), 'HIT',
                 '... and finds them');
    }

    is_state(ask('/tenant', [ 'one', 'two' ]), 'BYPASS', 'nobody has none');
}


# what the client and the configuration say

{
    $p->reset;
    is_state(ask('/v1', [ 'one', 'two' ],
                 headers => [ 'cache-control', 'no-cache' ]), 'BYPASS',
             'no-cache');
    is_state(ask('/bypass', [ 'one', 'two' ]), 'BYPASS', 'ai_cache_bypass');
    is_deeply(asked(), [ ([ 'one', 'two' ]) x 2 ], '... all are asked for');

    is_state(ask('/v1', [ 'n1', 'n2' ],
                 headers => [ 'cache-control', 'no-store' ]), 'BYPASS',
             'no-store');
    is_state(ask('/none', [ 'n1', 'n2' ]), 'MISS', 'ai_no_cache');
    is_state(ask('/none', [ 'n1', 'n2' ]), 'MISS', '... stores nothing');

    my $only = [ 'cache-control', 'only-if-cached' ];
    is_state(ask('/v1', [ 'one', 'two' ], headers => $only), 'HIT',
             'only-if-cached');
    is(ask('/v1', [ 'one', 'nowhere' ], headers => $only)->{status}, 504,
       '... with one that is not');

    sleep(1.1);
    is_state(ask('/v1', [ 'one', 'two' ],
                 headers => [ 'cache-control', 'max-age=0' ]), 'MISS',
             'max-age');

    is_state(ask('/small', [ 'a', 'b' x 200 ]), 'MISS', 'max_size');

    $p->reset;
    is_state(ask('/small', [ 'a', 'b' x 200 ]), 'MISS', '... of each');
    is_deeply(asked(), [ [ 'b' x 200 ] ], '... the small one is stored');
}


# failures

{
    $p->set(status => 400);
    is(ask('/v1', [ 'one', 'bad' ])->{status}, 400, 'an error is an error');
    $p->set(status => 0);

    is_state(ask('/v1', [ 'one', 'bad' ]), 'MISS', '... and is not stored');

    my $acme = [ 'x-tenant', 'stale' ];

    ask('/stale', [ 'one', 'two' ], headers => $acme);
    sleep(3.2);
    $p->set(status => 500);

    my $r = ask('/stale', [ 'two', 'one' ], headers => $acme);
    is_state($r, 'STALE', 'stale ones when the provider fails');
    is_deeply(vectors($r), [ map { vector($_) } qw(two one) ], '... in order');

    isnt(ask('/stale', [ 'two', 'none' ], headers => $acme)->{status}, 200,
         '... not when one was never there');

    $p->set(status => 0);
    $r = ask('/stale', [ 'two', 'one' ], headers => $acme);
    is_state($r, 'EXPIRED', 'new ones when it does not fail');
    is_state(ask('/stale', [ 'two', 'one' ], headers => $acme), 'HIT',
             '... are stored');

    $p->set(less => 1);
    my $all = ask('/v1', [ 'l1', 'l2' ]);
    is_state($all, 'MISS', 'fewer vectors than inputs');
    is(scalar @{ $all->json->{data} }, 1, '... are passed on as they are');

    is(ask('/v1', [ 'one', 'l3' ])->{status}, 502,
       '... and cannot be put together with others');
    $p->set(less => 0);
    is_state(ask('/v1', [ 'l1', 'l2' ]), 'MISS', '... nor stored');

    $gw->allow(qr/has other vectors than those that it was asked for/);
    $gw->allow(qr/a stale answer is sent instead of an error/);
}


# several clients ask for the same at the same time

sub together {
    my ($path, $n, $input) = @_;

    return map { $client->open("$path/embeddings",
                               { model => 'e', input => $input }) } 1 .. $n;
}

sub states {
    my %n;
    $n{"$_->{status} " . ($_->{headers}{'x-ai-cache'} // 'none')}++ for @_;
    return \%n;
}

{
    my @want = map { vector($_) } qw(t1 one t2 t1);

    ask('/v1', [ 'one', 'two' ]);
    $p->reset;
    $p->set(wait => 500);

    my @c = together('/v1', 8, [ qw(t1 one t2 t1) ]);
    $_->finish for @c;

    is_deeply(states(@c), { '200 MISS' => 1, '200 COALESCED' => 7 },
              'the same batch from eight clients');
    is_deeply(asked(), [ [ 't1', 't2' ] ],
              '... one request, for what is missing');
    is(scalar(grep { encode_json(vectors($_)) eq encode_json(\@want) } @c), 8,
       '... all have all of it, in order');

    my ($one) = grep { $_->{headers}{'x-ai-cache'} eq 'COALESCED' } @c;
    my ($led) = grep { $_->{headers}{'x-ai-cache'} eq 'MISS' } @c;

    is($one->{headers}{'x-cost'} + 0, 0, '... for nothing');
    cmp_ok($led->{headers}{'x-cost'}, '>', 0, '... but the one that has asked');
    is_deeply($one->json->{usage}, $led->json->{usage}, '... the same usage');

    $p->set(wait => 0);
    is_state(ask('/v1', [ 't2', 't1' ]), 'HIT', '... each input is stored');

    # another batch does not wait for it

    $p->reset;
    $p->set(wait => 500);
    @c = (together('/v1', 1, [ 'u1', 'u2' ]), together('/v1', 1, [ 'u2' ]));
    $_->finish for @c;
    is_deeply(states(@c), { '200 MISS' => 2 }, 'other batches ask');

    # with "ai_cache_lock off"

    $p->reset;
    @c = together('/alone', 2, [ 'v1', 'v2' ]);
    $_->finish for @c;
    is_deeply(states(@c), { '200 MISS' => 2 }, 'without a lock all ask');

    # the first client leaves

    $p->reset;
    my ($first) = together('/v1', 1, [ 'w1', 'w2' ]);
    $p->wait_log(sub { @_ == 1 });
    @c = together('/v1', 3, [ 'w1', 'w2' ]);
    sleep(0.2);
    $first->reset;
    $_->finish for @c;
    is_deeply(states(@c), { '200 COALESCED' => 3 }, 'the first client leaves');
    is_deeply(asked(), [ [ 'w1', 'w2' ] ], '... its request goes on');

    # failures

    $p->reset;
    $p->set(status => 400);
    @c = together('/v1', 3, [ 'x1', 'x2' ]);
    $_->finish for @c;
    is_deeply([ map { $_->{status} } @c ], [ 400, 400, 400 ],
              'a failure is one for all');
    $p->set(status => 0);

    # while somebody else gets new ones

    $p->set(wait => 0);
    ask('/update', [ 'y1', 'y2' ]);
    sleep(1.2);
    $p->reset;
    $p->set(wait => 500);
    ($first) = together('/update', 1, [ 'y1', 'y2' ]);
    $p->wait_log(sub { @_ == 1 });

    my $r = ask('/update', [ 'y1', 'y2' ]);

    is_state($r, 'STALE', 'stale ones while they are updated');
    is_deeply(vectors($r), [ map { vector($_) } qw(y1 y2) ], '... all');

    $first->finish;
    is_state($first, 'EXPIRED', '... the first one waits');
    $p->set(wait => 0);
    is_deeply(asked(), [ [ 'y1', 'y2' ] ], '... one request');
    is_state(ask('/update', [ 'y1', 'y2' ]), 'HIT', '... and all are new');
}


# many, and more than are split

{
    $p->reset;
    ask('/v1', [ map { "m$_" } 0 .. 255 ]);
    my $r = ask('/v1', [ map { "m$_" } reverse(0 .. 255) ]);
    is_state($r, 'HIT', '256 of them');
    is_deeply(vectors($r), [ map { vector("m$_") } reverse(0 .. 255) ],
              '... in order');

    ask('/v1', [ map { "n$_" } 0 .. 256 ]);
    is_state(ask('/v1', [ map { "n$_" } 0 .. 256 ]), 'HIT',
             'more than that as a whole');
    is_state(ask('/v1', [ map { "n$_" } reverse(0 .. 256) ]), 'MISS',
             '... and only so');
}


# any of some inputs in any order: always as without a cache

{
    my ($bad, $n) = (0, 0);

    srand(20261121);

    for (1 .. 150) {
        my @inputs = map { 'r' . int(rand(40)) } 0 .. 1 + int(rand(12));
        my $r = ask('/v1', \@inputs);

        $bad++ if $r->{status} != 200
            || encode_json([ map { $_->{embedding} } @{ $r->json->{data} } ])
               ne encode_json([ map { vector($_) } @inputs ]);
        $n++ if $r->{headers}{'x-ai-cache'} eq 'HIT';
    }

    is($bad, 0, '150 random batches are as they must be');
    cmp_ok($n, '>', 20, "... $n of them without the provider");
}

$gw->finish;


# two nodes with one Redis, which is asked for all inputs at once

SKIP: {
    skip(AI::Redis::missing(), 1) if AI::Redis::missing();

    my $redis = AI::Redis->new->start;
    my @nodes = map { gateway(<<"END") } 1, 2;
    ai_redis main { server 127.0.0.1:$redis->{port}; timeout 5s; }
    ai_cache_zone vectors 1m redis=main;

    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_model e { target p/vectors; }

    ai_cache vectors ttl=1m scope=global;
END

    my $post = sub {
        my ($node, @inputs) = @_;
        return $nodes[$node]->client->post('/v1/embeddings',
                                     { model => 'e', input => \@inputs });
    };

    is_state($post->(0, map { "s$_" } 1 .. 50), 'MISS', 'one node');

    # an answer is told before it is stored

    my $until = time() + 10;

    while (@{ $redis->cmd('KEYS', '*:cache:*') } < 50 && time() < $until) {
        sleep(0.05);
    }

    # ... and a node uses its Redis once it has asked for purges

    for (1 .. 29) {
        last if $post->(1, "s$_")->{headers}{'x-ai-cache'} eq 'HIT';
        sleep(0.3);
    }

    $p->reset;

    my $r = $post->(1, map { "s$_" } 30 .. 59);

    is_deeply(asked(), [ [ map { "s$_" } 51 .. 59 ] ],
              'another asks for what the first has not');
    is_deeply(vectors($r), [ map { vector("s$_") } 30 .. 59 ],
              '... and has all');

    $_->finish for @nodes;
}

done_testing();
