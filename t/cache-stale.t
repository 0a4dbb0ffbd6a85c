#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# stale=, ai_cache_use_stale, ai_cache_background_update: answers that are too
# old, and better than none.

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

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'no module of the cache'
    if AI::Gateway::modules() && !grep { /cache/ } AI::Gateway::modules();

# answers with a number that grows, after "wait" ms, or with "status"

my $n = 0;
my $p = AI::Provider->start(on_reset => sub { $n = 0 }, handler => sub {
    my ($req) = @_;
    my $v = $req->{vars};
    my @wait = $v->{wait} ? [ 'sleep', $v->{wait} ] : ();

    return [ @wait, [ 'stall' ] ] if $v->{hang};
    return [ @wait, [ 'close' ] ] if $v->{close};
    return [ @wait, @{ json_script($v->{status},
             { error => { message => 'no', type => 'x' } }) } ]
        if $v->{status};

    my %say = (text => 'answer ' . ++$n, stream => $req->{json}{stream});

    $say{usage} = undef if $req->{json}{stream}
                           && !$req->{json}{stream_options}{include_usage};
    $say{interval} = $v->{pace} if $v->{pace};

    return [ @wait, @{ openai_script(%say) } ];
});
my $url = $p->url;

my $gw = gateway(<<"END",
    ai_cache_zone answers 4m;

    ai_provider p { dialect openai; endpoint $url; key none;
                    timeout first=3s; }
    ai_provider gone { dialect openai; endpoint http://127.0.0.1:1; key none; }
    ai_model m { target p/x; retry off; price in=1 out=1;
                 breaker off; }
    ai_model breaker { target p/y; retry off;
                       breaker 50%/60s min=2 open=60s; }
END
    server => <<'END');
    location /v1/ {
        ai_pass model;
        ai_cache answers ttl=1s stale=1m scope=global;
        ai_cache_use_stale error timeout 429 5xx;
    }

    location /off/ {
        ai_pass model;
        ai_cache answers ttl=1s stale=1m scope=global;
    }

    location /timeout/ {
        ai_pass model;
        ai_cache answers ttl=1s stale=1m scope=global;
        ai_cache_use_stale timeout;
    }

    location /short/ {
        ai_pass model;
        ai_cache answers ttl=1s stale=1s scope=global;
        ai_cache_use_stale error timeout 429 5xx;
    }

    location /updating/ {
        ai_pass model;
        ai_cache answers ttl=1s stale=1m scope=global;
        ai_cache_use_stale updating;
    }

    location /background/ {
        ai_pass model;
        ai_cache answers ttl=1s stale=1m scope=global;
        ai_cache_background_update on;
    }
END

my $client = $gw->client;
my $q = 0;

sub ask {
    my ($path, %o) = @_;
    my $model = delete $o{model} // 'm';
    my $open = delete $o{open};
    my $headers = delete $o{headers} // [];
    my $raw = delete $o{raw};
    my $body = { model => $model, temperature => 0, messages =>
                 [ { role => 'user', content => "question $q" } ], %o };

    $path .= '/chat/completions' if $path !~ /messages$/;

    return $client->open($path, $body, headers => $headers) if $open;
    return $client->post($path, $body, headers => $headers);
}

sub said {
    my ($r) = @_;
    my $text = '';

    if (@{ $r->{events} }) {
        for (@{ $r->{events} }) {
            my $j = eval { decode_json($_->{data}) } // next;
            $text .= $j->{choices}[0]{delta}{content} // ''
                if @{ $j->{choices} // [] };
        }

    } else {
        my $j = eval { $r->json } // {};
        $text = $j->{choices}[0]{message}{content}
                // ($j->{error} ? 'error' : '');
    }

    return "$r->{status} " . ($r->{headers}{'x-ai-cache'} // 'none')
           . " $text";
}

# a stored answer that is too old by now

sub old {
    my ($path, %o) = @_;
    $p->set(map { $_ => undef } qw(status wait hang close pace));
    $p->reset;
    $q++;
    my @said;

    # within the second for which it is fresh
    for (1 .. 10) {
        my $start = time();
        @said = map { said(ask($path, %o)) } 1, 2;
        last if time() - $start < 0.8;
        $p->reset;
        $q++;
    }

    is($said[0], '200 MISS answer 1', "$path: stored");
    is($said[1], '200 HIT answer 1', '... fresh');
    sleep 1.2;
}


old('/v1');
is(said(ask('/v1')), '200 EXPIRED answer 2', 'a new one is got');
is(said(ask('/v1')), '200 HIT answer 2', '... and stored');

for my $case ([ '5xx', status => 500 ], [ '5xx, 503', status => 503 ],
              [ '429', status => 429 ], [ 'timeout', hang => 1 ],
              [ 'error', close => 1 ], [ 'error, 401', status => 401 ])
{
    my ($name, %what) = @$case;

    old('/v1');
    $p->set(%what);

    my $r = ask('/v1');
    is(said($r), '200 STALE answer 1', "$name: the stale one");
    cmp_ok($r->{headers}{age}, '>=', 1, '... has an age');
    is($r->json->{usage}{prompt_tokens}, 10, '... and its usage');

    my $s = ask('/v1', stream => JSON::PP::true);
    is(said($s), '200 STALE answer 1', '... as a stream');
    is($s->{events}[-1]{data}, '[DONE]', '... with its end');
    is(ask('/v1', stream => JSON::PP::true, seed => 1)->{status} >= 400, 1,
       '... nothing where there is none');
}

like($gw->error_log, qr/a stale answer is sent instead of an error/,
     'the log tells');

old('/v1');
$p->set(status => 400);
is(said(ask('/v1')), '400 EXPIRED error', 'a bad request is an error');

old('/v1');
$p->set(status => 500);
is(ask('/v1', headers => [ 'Cache-Control', 'max-age=1' ])->{status}, 500,
   'not for one that does not want it');

old('/off');
$p->set(status => 500);
is(said(ask('/off')), '500 EXPIRED error', 'ai_cache_use_stale off');

old('/timeout');
$p->set(status => 500);
is(said(ask('/timeout')), '500 EXPIRED error', 'only timeout: 500');
$p->set(status => undef, hang => 1);
is(said(ask('/timeout')), '200 STALE answer 1', 'only timeout: a timeout');

old('/short');
$p->set(status => 500);
is(said(ask('/short')), '200 STALE answer 1', 'stale=1s');
sleep 1.2;
is(said(ask('/short')), '500 MISS error', '... gone');

old('/v1', model => 'breaker');
$p->set(status => 500);
is(said(ask('/v1', model => 'breaker')), '200 STALE answer 1',
   'opens a breaker');
$p->reset;
is(said(ask('/v1', model => 'breaker')), '200 STALE answer 1',
   'with an open breaker');
is(scalar($p->log), 0, '... nobody is asked');


# followers of one that fails

{
    old('/v1');
    $p->set(status => 500, wait => 1000);

    my @s = map { ask('/v1', open => 1) } 1 .. 5;
    $_->finish for @s;
    is(scalar(grep { said($_) eq '200 STALE answer 1' } @s), 5,
       'followers: the stale one');
    is(scalar($p->log), 2, 'one request, after that of before');
}


# updating

{
    old('/updating');
    $p->set(wait => 1500);

    my $leader = ask('/updating', open => 1);
    $p->wait_log(sub { @_ == 2 });

    my $start = time();
    is(said(ask('/updating')), '200 STALE answer 1', 'updating: at once');
    cmp_ok(time() - $start, '<', 1, '... in fact');

    $leader->finish;
    is(said($leader), '200 EXPIRED answer 2', 'the one that updates waits');
    is(said(ask('/updating')), '200 HIT answer 2', '... for all');
}


# in the background

for my $stream (0, 1) {
    old('/background');
    $p->set(wait => 1500);
    my @mode = $stream ? (stream => JSON::PP::true) : ();

    my $start = time();
    my $r = ask('/background', @mode);
    is(said($r), '200 STALE answer 1', "background, stream $stream: at once");
    cmp_ok(time() - $start, '<', 1, '... in fact');
    is(said(ask('/background', @mode)), '200 STALE answer 1',
       '... others too');

    ok($p->wait_log(sub { @_ == 2 && $_[1]{end} }), '... it is being updated');
    ok($gw->wait_for(sub { said(ask('/background', @mode))
                           eq '200 HIT answer 2' }, 2), '... and then new');
    is(scalar($p->log), 2, '... with one request');
}

{
    # what a refresh has used is logged and paid with its request
    old('/background');
    my $lines = $gw->access_log;
    is(said(ask('/background')), '200 STALE answer 1', 'a refresh');
    ok($gw->wait_for(sub { $gw->access_log > $lines }), '... is logged');
    my $log = (logged($gw, $lines + 1))[-1];
    is($log->{cost}, '0.000012000', '... with its cost');

    # a client that goes on with its connection
    old('/background');
    $p->set(wait => 300);

    my $body = encode_json({ model => 'm', temperature => 0, messages =>
                             [ { role => 'user',
                                 content => "question $q" } ] });
    my $raw = "POST /background/chat/completions HTTP/1.1\r\nHost: x\r\n"
              . "Content-Type: application/json\r\nContent-Length: "
              . length($body) . "\r\n\r\n$body";
    my $last = $raw =~ s/Host: x/Host: x\r\nConnection: close/r;

    my $s = $client->open('/', undef, raw => $raw);
    $s->fill(1) while !$s->{done} && !$s->{eof} && !$s->{timedout};
    is(said($s), '200 STALE answer 1', 'the first of two on a connection');

    my $fh = $s->{fh};
    syswrite $fh, $last;
    my $in = '';
    my $start = time();
    1 while sysread $fh, $in, 65536, length $in;

    like($in, qr/^HTTP\/1\.1 200 .*x-ai-cache: HIT.*answer 2/s,
         'the second one waits for the refresh');

    # a refresh that fails
    old('/background');
    $p->set(status => 500, wait => 100);
    my $failed = sub {
        my $n = () = $gw->read_file('error.log') =~ /attempt 1, .*background/g;
        return $n;
    };
    my $before = $failed->();

    for my $n (1, 2) {
        is(said(ask('/background')), '200 STALE answer 1',
           "a refresh that fails, $n");
        ok($gw->wait_for(sub { $failed->() == $before + $n }), '... did');
    }
    $p->set(status => undef, wait => undef);
    is(said(ask('/background')), '200 STALE answer 1', '... then it does not');
    ok($gw->wait_for(sub { said(ask('/background')) =~ /HIT answer \d/ }, 2),
       '... and all is new');

    # the client leaves at once
    old('/background');
    $p->set(wait => 200);
    my $c = ask('/background', open => 1);
    $c->fill(1);
    $c->reset;
    ok($gw->wait_for(sub { said(ask('/background')) eq '200 HIT answer 2' },
                     3), 'the refresh goes on without its client');
}

$gw->finish;
done_testing();
