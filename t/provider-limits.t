#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# What a provider tells of its limits: who has nothing left is not asked.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use POSIX qw(strftime);
use Test::More;
use Time::HiRes qw(time sleep);

use AI::Gateway;
use AI::Kit qw(gateway chat);
use AI::Provider;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;

# the model's name is a list of headers

my $headers = sub {
    my ($req) = @_;
    my ($what) = ($req->{json}{model} // '') =~ /^(\w.*)/;

    return map {
        my ($name, $value) = /^([^~]+)~(.*)/;
        defined $name ? ($name => $value) : ()
    } split /\+/, $what // '';
};

my $openai = AI::Provider->start(handler => sub {
    my ($req) = @_;
    my @h = $headers->($req);

    return AI::Provider::json_script(429, { error => {
        message => 'slow down', type => 'requests', code => 'rate_limit'
    } }, @h) if $req->{json}{model} =~ /refuse/;

    return AI::Provider::openai_script(text => 'a b', headers => \@h);
});

my $anthropic = AI::Provider->start(handler => sub {
    my ($req) = @_;
    return AI::Provider::anthropic_script(text => 'a b',
                                          headers => [ $headers->($req) ]);
});

sub later { strftime('%Y-%m-%dT%H:%M:%SZ', gmtime(time() + $_[0])) }

my $x = 'x-ratelimit-remaining';
my $xr = 'x-ratelimit-reset';
my $an = 'anthropic-ratelimit';
my ($soon, $hour) = (later(40), later(3600));

my %targets = (
    requests => "o/$x-requests~0+$xr-requests~1m30s",
    tokens => "o/$x-tokens~0+$xr-tokens~20.5s+$x-requests~7+$xr-requests~9h",
    some => "o/$x-tokens~1+$xr-tokens~20s",
    noreset => "o/$x-tokens~0",
    retry => 'o/retry-after~33',
    long => "o/$x-requests~0+$xr-requests~5h",
    anthropic => "a/$an-requests-remaining~0+$an-requests-reset~$soon",
    input => "a/$an-input-tokens-remaining~0+$an-input-tokens-reset~$soon",
    other => "a/$an-other-remaining~0+$an-other-reset~$hour",
    wait => "o/$x-requests~0+$xr-requests~2500ms",
    refuse => "o/refuse+$x-requests~0+$xr-requests~45s",
    keys => "k/$x-requests~0+$xr-requests~50s",
);

my $models = join "\n", map { "ai_model $_ { target $targets{$_}; }" }
             sort keys %targets;

my $gw = gateway(<<"END", workers => 2);
    ai_provider o { dialect openai; endpoint @{[ $openai->url ]}; key none; }
    ai_provider a { dialect anthropic; endpoint @{[ $anthropic->url ]};
                    key none; }
    ai_provider k { dialect openai; endpoint @{[ $openai->url ]};
                    key one; key two; }
    $models
    ai_model both { target o/$x-tokens~0+$xr-tokens~99s; fallback o/fine; }
END

sub ask { return $gw->client->post('/v1/chat/completions', chat(@_)) }

sub cools {
    my ($model, $from, $to) = @_;

    is(ask($model)->{status}, 200, "$model: answers");

    for (1 .. 4) {
        my $r = ask($model);
        my $after = $r->{headers}{'retry-after'} // -1;

        ok($r->{status} == 429 && $after >= $from && $after <= $to,
           "$model: then not before its reset")
            or diag("$r->{status} $after $r->{body}");
    }
}

sub goes_on {
    my ($model) = @_;
    is(join(' ', map { ask($model)->{status} } 1 .. 3), '200 200 200',
       "$model: goes on");
}

cools('requests', 70, 90);
cools('tokens', 10, 21);
cools('retry', 20, 33);
cools('long', 280, 300);
cools('anthropic', 20, 40);
cools('input', 20, 40);

goes_on($_) for qw(some noreset other);

# a short wait is waited for

is(ask('wait')->{status}, 200, 'a reset that is near');

my $start = time();
is(ask('wait')->{status}, 200, '... is waited for');
cmp_ok(time() - $start, '>', 0.5, '... so long');

# another target serves

is(ask('both')->{status}, 200, 'with a fallback');
is(ask('both')->{status}, 200, '... the fallback serves');
$gw->wait_for(sub { 2 <= grep { /"model":"both"/ } split /\n/,
                    $gw->read_file('access.log') }, 5);
my ($last) = reverse grep { /"model":"both"/ } split /\n/,
             $gw->read_file('access.log');
like($last, qr{"target":"o/fine"}, '... its target');

# a refusal without retry-after

$gw->allow(qr/attempt 1/);

my $r = ask('refuse');
is($r->{status}, 429, 'a refusal');
ok(($r->{headers}{'retry-after'} // 0) > 40, '... until the reset')
    or diag($r->{headers}{'retry-after'});

# keys: each has limits of its own

is(join(' ', map { ask('keys')->{status} } 1, 2), '200 200',
   'two keys are asked once each');
$r = ask('keys');
is($r->{status}, 429, '... then none has anything left');

$gw->finish;

done_testing();
