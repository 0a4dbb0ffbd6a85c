#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Forms of a zone's key: a variable, text around variables, many of them,
# captures; which key each of them makes of a request.

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

my %zones = (
    one    => [ '$http_x_key', 'k' ],
    brace  => [ '${http_x_key}', 'k' ],
    text   => [ 'all', 'all' ],
    after  => [ '$http_x_key-1', 'k-1' ],
    before => [ 'a.${http_x_key}b', 'a.kb' ],
    two    => [ '$http_x_key$http_x_more', 'km' ],
    none   => [ '<$http_x_none>', '<>' ],
    four   => [ '$http_x_key/$http_x_more/', 'k/m/' ],
    many   => [ '$http_x_key/$http_x_more/$http_x_key', 'k/m/k' ],
    model  => [ 'm:$ai_model', 'm:m' ],
    match  => [ 'c-$1', 'c-match' ],
);

my $zones = join "\n", map {
    qq(ai_limit_zone "$zones{$_}[0]" zone=$_ requests=1000/m;)
} sort keys %zones;
my $locations = join "\n", map {
    "location ~ ^/($_)/ { ai_limit $_; ai_pass model; }"
} sort keys %zones;

my $gw = gateway(<<"END", server => <<"END2");
    ai_provider p { dialect openai; endpoint $url; key none; }
    ai_model m { target p/usage:10.20; }
    $zones
END
    $locations
    location = /limits { ai_limit_view; }
END2

sub ask {
    my ($zone, @headers) = @_;
    return $gw->client->post("/$zone/v1/chat/completions", chat('m'),
                             headers => \@headers);
}

for my $zone (sort keys %zones) {
    my $r = ask($zone, 'X-Key' => 'k', 'X-More' => 'm');
    is($r->{status}, 200, "$zone: $zones{$zone}[0]");

    my $entries = $gw->client->get("/limits?zone=$zone")
                     ->json->{zones}[0]{entries};
    is_deeply([ map { $_->{key} } @$entries ], [ $zones{$zone}[1] ],
              '... its key');
}

# the same key again is the same entry; others are not

ask('one', 'X-Key' => $_) for 'k', 'l', 'k', 'a-long-key-of-some-bytes',
                              'b-long-key-of-some-bytes', 'k';
my %used = map { $_->{key} => $_->{requests}{used} }
           @{ $gw->client->get('/limits?zone=one')->json->{zones}[0]{entries} };

is(scalar keys %used, 4, 'keys');
cmp_ok($used{k}, '>', $used{l}, '... each with its own use');

my $r = ask('one');
is($r->{headers}{'x-ratelimit-limit-requests'}, undef, 'no key, no limit');

my $bad = AI::Gateway->new(conf => <<"END");
events {}
http {
    ai_limit_zone \$ai_modell zone=z requests=1r/m;
    server { listen 127.0.0.1:%%PORT_0%%; }
}
END
my ($rc, $out) = $bad->conf_test;
isnt($rc, 0, 'an unknown variable: refused');
like($out, qr/unknown "ai_modell" variable/, '... why');

ok($gw->finish, 'clean');

done_testing();
