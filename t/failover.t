#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# The faults of the failover benchmark in their full timing, through each pair
# of dialects: (caller, provider).  All scenarios of all pairs run at once, one
# process each; about 90 seconds.  TEST_AI_FAILOVER: pairs to run ("oo aa").

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP;
use POSIX ();
use Test::More;
use Time::HiRes qw(time sleep);

use AI::Client;
use AI::Faults;
use AI::Gateway;
use AI::Provider;
use AI::Wellformed;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'real time' if $ENV{TEST_AI_VALGRIND};

my %dialect = (o => 'openai', a => 'anthropic');
my %path = (o => '/v1/chat/completions', a => '/v1/messages');
my @pairs = split ' ', $ENV{TEST_AI_FAILOVER} // 'oo oa ao aa';

# p: the same with a fallback that is told to continue

my @scenarios = (map({ sprintf 's%02d', $_ } 1 .. 16), 's08p', 's14p');

my %extra = (
    s14 => { fallback => 'fb-ok-noprefill' },
    s08p => { primary => 's08', option => 'prefill=on' },
    s14p => { primary => 's14', fallback => 'fb-ok-noprefill',
              option => 'prefill=on' },
    s15 => { more => 'breaker 50%/30s min=3 open=10s;' },
);

# one provider of each pair; s08p and s14p fail like s08 and s14

my %provider = map { $_ => AI::Provider->start(AI::Faults::handler('full')) }
               @pairs;

my $conf = '';

for my $pair (@pairs) {
    my $speaks = $dialect{ substr $pair, 1 };

    $conf .= "ai_provider wall-$pair { dialect $speaks; endpoint "
             . $provider{$pair}->url . '; key sk-wall; '
             . "timeout connect=2s first=10s idle=10s; }\n"
             . "ai_model $pair-ok { target wall-$pair/fb-ok; }\n";

    for my $s (@scenarios) {
        my $x = $extra{$s} // {};
        my $primary = $x->{primary} // $s;
        my $fallback = $x->{fallback} // 'fb-ok';
        my $option = $x->{option} // '';
        my $more = $x->{more} // '';

        $conf .= "ai_model $pair-$s { target wall-$pair/x-$s/$primary; "
                 . "fallback wall-$pair/y-$s/$fallback $option; "
                 . 'retry 2 backoff=500ms..8s; recover continue; '
                 . "$more }\n";
    }
}

my $gw = AI::Gateway->new(workers => 2, conf => <<"END");
events {
    worker_connections 1024;
}

http {
    $conf

    server {
        listen 127.0.0.1:%%PORT_0%%;

        location /v1/ { ai_pass model; }
    }
}
END

$gw->start;

# "flap" and "once" count from here
$_->reset for values %provider;

my $began = time();
my %result;
my @running;

for my $pair (@pairs) {
    for my $s (@scenarios) {
        push @running, [ $pair, $s, background($pair, $s) ];
    }
}

for (@running) {
    my ($pair, $s, $pid, $pipe) = @$_;
    local $/;
    my $text = <$pipe>;

    waitpid $pid, 0;
    $result{$pair}{$s} = eval { decode_json($text) }
                         // [ { status => 0, problems => [ 'no result' ] } ];
}

for my $pair (@pairs) {
    my %attempts;

    for my $req ($provider{$pair}->log) {
        my $body = eval { decode_json($req->{body}) } // {};
        my ($role, $s) = ($body->{model} // '') =~ m{^([xy])-(\w+)/} or next;

        push @{ $attempts{$s}{$role} },
            { time => $req->{time} - $began, body => $body,
              hangup => $req->{hangup} };
    }

    for my $s (@scenarios) {
        subtest "$pair $s" => sub {
            check($pair, $s, $result{$pair}{$s}, $attempts{$s}{x} // [],
                  $attempts{$s}{y} // []);
        };
    }
}

is(scalar(grep { /exited on signal/ } split /\n/, $gw->error_log), 0,
   'no worker died');

$gw->finish;

done_testing();


# a scenario in a process of its own: a list of what was answered

sub background {
    my ($pair, $s) = @_;

    pipe my $r, my $w or die "pipe: $!";

    my $pid = fork // die "fork: $!";

    if ($pid == 0) {
        # not through the test's END blocks
        close $r;
        alarm 180;

        my $list = eval { scenario($pair, $s) };
        $list //= [ { status => 0, problems => [ "$@" ] } ];

        print $w encode_json($list);
        close $w;
        POSIX::_exit(0);
    }

    close $w;

    return ($pid, $r);
}

sub scenario {
    my ($pair, $s) = @_;
    my @list;

    for my $i (0 .. ($s eq 's15' ? 19 : 0)) {
        my $wait = $began + 4 * $i - time();
        sleep $wait if $wait > 0;

        push @list, ask($pair, $s, 1);
    }

    push @list, ask($pair, 'ok', 0);

    return \@list;
}

sub ask {
    my ($pair, $s, $stream) = @_;
    my $caller = substr $pair, 0, 1;
    my $start = time() - $began;

    my $body = {
        model => "$pair-$s", max_tokens => 1000,
        messages => [ { role => 'user', content => 'Tell me about her.' } ],
        $stream ? (stream => JSON::PP::true) : (),
        $stream && $caller eq 'o'
        ? (stream_options => { include_usage => JSON::PP::true }) : (),
    };

    my @headers = $caller eq 'o'
        ? (Authorization => 'Bearer sk-client')
        : ('x-api-key' => 'sk-client', 'anthropic-version' => '2023-06-01');

    my $client = $gw->client(timeout => 130, headers => \@headers);
    my $r = $client->post($path{$caller}, $body);
    my $text = AI::Wellformed::text($r);

    $text =~ s/\s+/ /g;
    $text =~ s/^ | $//g;

    return {
        status => $r->{status}, start => $start, time => $r->{time},
        error => $r->{error}, text => $text, headers => $r->{headers},
        model => AI::Wellformed::model($r), body => substr($r->{body}, 0, 500),
        usage => AI::Wellformed::usage($r), says => AI::Wellformed::error($r),
        tail => substr($r->{body}, -300),
        problems => $stream
            ? [ AI::Wellformed::stream($r, $dialect{$caller}, usage => 1) ]
            : $r->{done} ? [] : [ 'HTTP' ],
    };
}

sub complete {
    my ($r, $what) = @_;
    my $name = $what ? "$what: " : '';

    is($r->{status}, 200, "${name}status") or diag("$r->{body}");
    is($r->{text}, $AI::Faults::text, "${name}the whole text")
        or diag("... $r->{tail}");
    is_deeply($r->{problems}, [], "${name}well-formed")
        or diag("... $r->{tail}");
}

sub check {
    my ($pair, $s, $list, $primary, $fallback) = @_;
    my $r = $list->[0];
    my $n = @$primary;
    my $code = substr $s, 0, 3;
    my @gaps = map { $primary->[$_]{time} - $primary->[$_ - 1]{time} }
               1 .. $#$primary;

    note(sprintf "%s %s: %.1f s, %d+%d attempts%s", $pair, $s, $r->{time} // 0,
         $n, scalar @$fallback,
         @gaps ? ', gaps ' . join(' ', map { sprintf '%.2f', $_ } @gaps) : '');

    # an unstreamed call of a healthy model afterwards

    my $after = pop @$list;
    complete($after, 'afterwards');

    if ($code eq 's13') {
        is($r->{status}, 400, 'status');
        like($r->{body}, qr/rejected as a result of our safety/, 'message');
        like($r->{body}, qr/content_policy_violation/, 'reason')
            if $pair eq 'oo';
        is($r->{says}{type}, 'invalid_request_error', 'type');
        is($n, 1, 'attempts');
        is(@$fallback, 0, 'fallback is not asked');
        return;
    }

    if ($code ne 's15') {
        complete($r, '');
        cmp_ok($r->{usage} // 0, '>', 0, 'usage');
    }

    if ($code eq 's01') {
        cmp_ok($n, '>=', 2, 'attempts');
        cmp_ok($gaps[0] // 0, '>=', 1.8, 'Retry-After is honoured');
        cmp_ok(scalar(grep { $_->{time} - $primary->[0]{time} < 1.5 }
                      @$primary), '<=', 2, 'attempts within 1.5 s');
        cmp_ok($r->{time}, '<=', 20, 'time');
        is($r->{model}, 'x-s01/s01', 'answered by the primary');

    } elsif ($code eq 's02') {
        cmp_ok(scalar(grep { $_->{time} - $primary->[0]{time} < 3 }
                      @$primary), '<=', 4, 'attempts within 3 s');
        cmp_ok($n, '<=', 6, 'attempts');

    } elsif ($code eq 's03') {
        cmp_ok($n, '>=', 2, 'attempts');

    } elsif ($code eq 's04') {
        cmp_ok($n, '<=', 6, 'attempts');

    } elsif ($code eq 's06') {
        is($n, 1, 'attempts');
        cmp_ok($r->{time}, '<=', 100, 'time');
        ok($primary->[0]{hangup}, 'the silent attempt was given up');

    } elsif ($code eq 's07') {
        cmp_ok($r->{time}, '<=', 15, 'time');

    } elsif ($code eq 's09') {
        cmp_ok($r->{time}, '<=', 45, 'time');

    } elsif ($code eq 's11') {
        cmp_ok($r->{time}, '<=', 8, 'time');
        is(@$fallback, 0, 'fallback is not asked');

    } elsif ($code eq 's12') {
        is($n, 1, 'attempts');
        is(@$fallback, 1, 'fallback is asked');

    } elsif ($code eq 's15') {
        flapping($list, $primary);

    } elsif ($code eq 's16') {
        is($r->{model}, 'y-s16/fb-ok', 'model is the one that answered');
        cmp_ok($n, '<=', 6, 'attempts');
    }

    if ($code eq 's08' || $code eq 's14') {
        my @prefilled = grep {
            $_->{body}{messages}[-1]{role} eq 'assistant'
        } @$fallback;

        is(scalar @prefilled, $s =~ /p$/ ? 1 : 0, 'continued');
        is(scalar @$fallback, $s eq 's14p' ? 2 : 1, 'attempts of fallback');

        is($prefilled[0]{body}{messages}[-1]{content},
           join(' ', (split ' ', $AI::Faults::text)[0 .. 39]),
           'with what was delivered') if @prefilled;
    }
}

sub flapping {
    my ($list, $primary) = @_;

    is(scalar @$list, 20, 'requests');

    complete($list->[$_], "request $_") for 0 .. $#$list;

    my @down = grep { $_->{start} < 60 } @$list;
    my @tried = grep { $_->{time} < 60 } @$primary;

    note(scalar(@tried) . ' attempts of the primary during the outage, at '
         . join ' ', map { sprintf '%.1f', $_->{time} } @tried);

    cmp_ok(scalar @tried, '<', scalar @down, 'fewer attempts than requests');

    my ($back) = grep { $_->{model} =~ /^x-/ } @$list;

    ok($back, 'the primary answers again')
        and cmp_ok($back->{start}, '<=', 90, 'soon');
}
