#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# What a key's record says of limits and quotas: more, less, none, nothing at
# all; in force without a reload, and not with a mistake in it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Test::More;

use AI::Gateway;
use AI::Kit qw(chat);
use AI::Live qw(key record json within);

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'no module of limits or of keys'
    if AI::Gateway::modules()
       && 2 != grep { /ratelimit|auth/ } AI::Gateway::modules();

my $gw = AI::Gateway->new(workers => 2, conf => <<'END');
events { }
http {
    ai_data %%DIR%%/data interval=50ms size=4m;
    ai_provider e { dialect static; text "one two three"; }
    ai_model m { target e/x; price in=0 out=0; }

    ai_limit_zone $ai_key_id zone=rate requests=3/hour;
    ai_limit_zone $ai_key_id zone=slots concurrent=10;
    ai_quota_zone $ai_key_id zone=day requests=3/day;
    ai_quota_zone $ai_key_id zone=none tokens=$http_x_none;

    server {
        listen 127.0.0.1:%%PORT_0%%;
        location / { ai_auth key; ai_pass model; }
        location /rate/ { ai_auth key; ai_limit rate slots; ai_pass model; }
        location /day/ { ai_auth key; ai_quota day; ai_pass model; }
        location /none/ { ai_auth key; ai_quota none; ai_pass model; }
        location = /limits { ai_limit_view; }
        location = /data { return 200 "$ai_data_keys $ai_data_keys_generation"; }
    }
}
END

mkdir "$gw->{dir}/data";

sub put {
    $gw->write_file('data/.new', $_[0]);
    rename "$gw->{dir}/data/.new", "$gw->{dir}/data/keys.json" or die;
}

sub data { split ' ', $gw->client->get('/data')->{body} }

# puts the file and waits until it was read

sub keys_are {
    my @records = @_;
    my (undef, $old) = data();

    put(json(\@records));
    ok(defined within(sub { (data())[1] > $old }, 5), '... it is read');
}

# so many requests are let through, and the last answer

sub passed {
    my ($where, $n, $tries) = @_;
    my ($count, $r) = (0);

    for (1 .. $tries // 8) {
        $r = $gw->client->post("/$where/v1/chat/completions", chat('m'),
                 headers => [ Authorization => 'Bearer ' . key($n),
                              'X-None' => '' ]);
        $count++ if $r->{status} == 200;
    }

    return wantarray ? ($count, $r) : $count;
}

my @zones = ([ 'rate', 'limits', '/hour' ], [ 'day', 'quotas', '/day' ]);
my @records;

for my $zone (@zones) {
    my ($name, $member, $unit) = @$zone;
    my $n = $name eq 'rate' ? 10 : 20;

    push @records,
        record($n),
        record($n + 1, $member => { $name => { requests => "5r$unit" } }),
        record($n + 2, $member => { $name => { requests => "1$unit" } }),
        record($n + 3, $member => { $name => { requests => undef } }),
        record($n + 4, $member => { $name => { requests => 0 } }),
        record($n + 5, $member => { $name => { requests => 4 } }),
        record($n + 6, $member => { other => { requests => '100/m' } }),
        record($n + 7, $member => undef),
        record($n + 8, $member => { $name => { requests => '2k/week' } });
}

# of the other kind they say nothing, or of a zone that limits nobody

push @records, record(30, quotas => { rate => { requests => '7/hour' } }),
               record(31, quotas => { none => { tokens => '1/day' } }),
               record(32, limits => { slots => { concurrent => 0 } });

put(json(\@records));
$gw->start;

for my $zone (@zones) {
    my ($name) = @$zone;
    my $n = $name eq 'rate' ? 10 : 20;
    my ($count, $r);

    is(passed($name, $n), 3, "$name: as configured");
    is(passed($name, $n + 1), 5, "$name: raised");
    ($count, $r) = passed($name, $n + 2);
    is($count, 1, "$name: lowered");
    like($r->json->{error}{message}, qr/"$name" reached: limit 1 requests /,
         '... and told');
    is($r->{headers}{'x-ratelimit-limit-requests'}, 1, '... in headers');
    is(passed($name, $n + 3), 8, "$name: null, unlimited");
    ($count, $r) = passed($name, $n + 4);
    is($count, 0, "$name: 0, nothing at all");
    like($r->json->{error}{message}, qr/"$name" allows no requests/,
         '... and told');
    is(passed($name, $n + 5), 4, "$name: a number has the unit of the zone");
    is(passed($name, $n + 6), 3, "$name: another zone");
    is(passed($name, $n + 7), 3, "$name: null for all");
    ($count, $r) = passed($name, $n + 8, 1);
    is($r->{headers}{'x-ratelimit-limit-requests'}, 2000,
       "$name: another unit of time");
}

is(passed('rate', 30), 3, 'a quota is no limit');
is(passed('none', 31), 1, 'a limit where the zone has none');
is(passed('none', 10), 8, '... for this key');
is(passed('rate', 32), 0, 'concurrency');

# as the view has it

my ($e) = grep { $_->{key} eq record(11)->{id} }
          @{ $gw->client->get('/limits?zone=rate')->json->{zones}[0]{entries} };
is($e->{requests}{limit}, 5, 'view');

# changed while it runs: what is used stays used

keys_are(record(10, limits => { rate => { requests => '6/hour' } }),
         record(21, quotas => { day => { requests => '1/day' } }),
         record(12));
is(passed('rate', 10), 3, 'raised later');
is(passed('day', 21), 0, 'lowered later');
is(passed('rate', 12), 2, 'gone');

# a mistake: the file before it stays in force

my (undef, $generation) = data();
my $n = 0;

for my $case (
    [ { limits => { rate => { requests => 'many' } } },
      '"limits" of zone "rate": invalid "requests": "many": it is not a numb' ],
    [ { limits => { rate => { requests => '5/fortnight' } } },
      '"requests": "5/fortnight": units of time are s, m, hour, day, week' ],
    [ { limits => { rate => { requests => '5/month' } } },
      'a rate is per s, m, hour, day or week, a month needs "ai_quota_zone"' ],
    [ { limits => { rate => { requets => '5/m' } } },
      '"limits" of zone "rate": unknown "requets", did you mean "requests"?' ],
    [ { limits => { rate => { usd => '5/m' } } },
      '"limits" of zone "rate": unknown "usd"' ],
    [ { limits => { rate => { requests => [] } } },
      'invalid "requests": "[]": it is a string such as "60r/m"' ],
    [ { limits => { rate => { requests => -1 } } },
      'invalid "requests": "-1": it is not a number' ],
    [ { limits => { slots => { concurrent => '5/m' } } },
      'invalid "concurrent": "5/m": it is a number such as 20' ],
    [ { quotas => { day => { tokens => '1.5/day' } } },
      '"quotas" of zone "day": invalid "tokens": "1.5/day": it is not a whol' ],
    [ { quotas => { day => { usd => '5/s' } } },
      'a quota is per m, hour, day, week or month, a second needs' ],
    [ { quotas => { day => { concurrent => 1 } } },
      '"quotas" of zone "day": unknown "concurrent"' ],
    [ { quotas => { day => { usd => '99999999999/month' } } },
      'it is too large' ])
{
    my ($more, $expected) = @$case;
    my $id = record(++$n + 100)->{id};

    put(json([ record(10), record($n + 100, %$more) ]));

    ok($gw->wait_for(sub {
           $gw->error_log =~ /keys\.json:1: record "$id": .*\Q$expected\E/
       }, 5), "bad: $expected")
        or diag(($gw->error_log =~ /.*keys\.json.*/g)[-1]);
}

is_deeply([ data() ], [ 'stale', $generation ], 'the file before is in force');
is(passed('rate', 10), 0, '... with what it says');

keys_are(record(10, limits => { rate => { requests => undef } }));
is(passed('rate', 10), 8, 'mended');

ok($gw->finish, 'clean');

done_testing();
