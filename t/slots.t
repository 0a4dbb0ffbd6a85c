#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Keys in turn, the client's own key, and the places of max_concurrent, which
# all workers share and dead ones give back.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;
use Time::HiRes qw(sleep);

use AI::Kit;
use AI::Gateway;
use AI::Provider;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

my $p = provider();
my $url = $p->url;

# a key k-<status>[-<Retry-After>] fails so, others succeed

my $k = AI::Provider->start(handler => sub {
    my ($req) = @_;
    my $auth = join ' ', map { $req->{headers}{$_} // () }
               'authorization', 'x-api-key';

    if ($auth =~ /k-(\d+)(?:-(\d+))?$/) {
        return json_script($1, { error => { message => 'bad key',
                                            type => 't', code => undef } },
                           $2 ? ('Retry-After' => $2) : ());
    }

    return $req->{path} =~ /messages$/
           ? anthropic_script(text => 'fine')
           : openai_script(text => 'fine');
});

my $keys = $k->url;

my $gw = gateway(<<"END");
    ai_provider turn    { dialect openai; endpoint $keys; key k-a k-b;
                          key k-c; }
    ai_provider limited { dialect openai; endpoint $keys;
                          key k-429-60 k-good; }
    ai_provider allbad  { dialect openai; endpoint $keys; key k-401 k-403; }
    ai_provider single  { dialect openai; endpoint $keys; key k-401; }
    ai_provider claude  { dialect anthropic; endpoint $keys;
                          key k-401 k-good; }
    ai_provider client  { dialect openai; endpoint $keys; client_key pass; }
    ai_provider clienta { dialect anthropic; endpoint $keys;
                          client_key pass; }
    ai_provider var     { dialect openai; endpoint $keys;
                          key \$http_x_their_key; }

    ai_provider one { dialect openai; endpoint $url; key none;
                      max_concurrent 1; }
    ai_model full  { target one/wait:4000; retry off; }
    ai_model never { target one/wait:4000; fallback one/x on=5xx; retry off; }
    ai_model hang  { target one/hang; retry off; }
    ai_model quick { target one/n:2; retry off; }
END

my ($r, $log);

# keys that a request with this model uses

sub keys_of {
    my ($model, %opt) = @_;

    $k->reset;
    ($r, $log) = chatting($gw, $model, %opt);

    return join ' ', map { my $h = $_->{headers};
                           ($h->{authorization} // $h->{'x-api-key'} // '-')
                           =~ s/^Bearer //r } $k->log;
}

my %seen;
$seen{keys_of('turn/x')}++ for 1 .. 9;
is_deeply(\%seen, { map { ("k-$_" => 3) } 'a', 'b', 'c' },
          'keys take turns');

# a request at a time finds out which are bad, and nobody asks with them again

for ([ limited => 'k-429-60' ], [ claude => 'k-401' ]) {
    my ($provider, $bad) = @$_;
    my %tried;

    for (1 .. 6) {
        $tried{keys_of("$provider/x")}++;
        is("$r->{status} $log->{error}", '200 ', "$provider: succeeds");
    }

    is($tried{"$bad k-good"}, 1, '... at once with the other key');
    is($tried{'k-good'}, 5, '... the bad one is left out then');
}

like(keys_of('allbad/x'), qr/^(?:k-401 k-403|k-403 k-401)$/, 'all refused');
like(keys_of('allbad/x'), qr/^(?:k-401 k-403|k-403 k-401)$/,
     '... used nevertheless');

is(keys_of('single/x'), 'k-401', 'a single key') for 1, 2;
is("$r->{status} $log->{error}", '502 auth',
   '... refused: not the client\'s fault');
is($r->json->{error}{code}, 'upstream_auth', '... code');

is(keys_of('var/x', headers => [ 'X-Their-Key' => 'k-x' ]), 'k-x',
   'key from a variable');

# nobody is asked without a key, or with the client's instead

for my $h ([], [ Authorization => 'Bearer mine' ]) {
    is(keys_of('var/x', headers => $h), '', '... an empty one');
    is("$r->{status} $log->{error}", '502 auth', '... is an error');
}

# client_key pass

for my $h ([ Authorization => 'Bearer mine' ], [ 'x-api-key' => 'mine' ],
           [ 'api-key' => 'mine' ], [ 'x-goog-api-key' => 'mine' ])
{
    for my $provider ('client', 'clienta') {
        is(keys_of("$provider/x", headers => $h), 'mine',
           "$provider: $h->[0]");
        my ($req) = $k->log;
        is(join(' ', grep { ($req->{headers}{$_} // '') =~ /mine/ }
                     sort keys %{ $req->{headers} }),
           $provider eq 'client' ? 'authorization' : 'x-api-key',
           '... in one header, that of the provider');
    }
}

is(keys_of('client/x'), '-', 'none');

is(keys_of('client/x', headers => [ Authorization => 'Bearer k-401' ]),
   'k-401', 'a bad key of the client');
is("$r->{status} $log->{error}", '401 auth', '... is told');

# max_concurrent

sub begin {
    my ($model, $n) = @_;

    $p->reset;
    my @s = map { $gw->client->open('/v1/chat/completions', chat($model)) }
            1 .. $n;
    $p->wait_log(sub { @_ >= $n });

    return @s;
}

my ($first) = begin('full', 1);
($r, $log) = chatting($gw, 'full');
is("$r->{status} $log->{error} $log->{attempts}", '503 saturated 1',
   'saturated');
cmp_ok($r->{headers}{'retry-after'} // 0, '>=', 1, '... Retry-After');

$r = $gw->client->post('/v1/messages', chat('full', max_tokens => 1));
is("$r->{status} " . $r->json->{error}{type}, '503 overloaded_error',
   '... for Anthropic');

($r, $log) = chatting($gw, 'never');
is("$r->{status} $log->{error}", '503 saturated', '... on= of others');
$first->finish;
is($first->{status}, 200, 'the one inside goes on');
($r) = chatting($gw, 'quick');
is($r->{status}, 200, '... and leaves its place');

# a client that leaves

for my $how ('abort', 'reset') {
    ($first) = begin('hang', 1);
    $first->$how;
    ok($p->wait_log(sub { $_[0]{hangup} }), "$how: the provider sees it");
    ($r) = chatting($gw, 'quick');
    is($r->{status}, 200, '... the place is free');
}

$gw->finish;

# all workers; a worker that is killed

$gw = gateway(<<"END", workers => 2, allow => [ qr/exited on signal 9/ ]);
    ai_provider two { dialect openai; endpoint $url; key none;
                      max_concurrent 2; }
    ai_model wait { target two/wait:4000+n:2; retry off; }
    ai_model hang { target two/hang; retry off; }
END

sub eight {
    my @s = map { $gw->client->open('/v1/chat/completions', chat('wait')) }
            1 .. 8;
    my %n;

    for (@s) {
        $_->finish;
        $n{$_->{status}}++;
    }

    return \%n;
}

is_deeply(eight(), { 200 => 2, 503 => 6 }, 'two of eight, by all workers');

my @hanging = begin('hang', 2);
is_deeply(eight(), { 503 => 8 }, 'no place is left');

my %old = map { $_ => 1 } $gw->workers;
kill 'KILL', keys %old;
ok($gw->wait_for(sub { 2 == grep { !$old{$_} } $gw->workers }),
   'workers are killed');
$_->finish for @hanging;

# dead workers are looked for four times in a second
sleep 1;
is_deeply(eight(), { 200 => 2, 503 => 6 }, '... their places are free');

$gw->finish;

done_testing();
