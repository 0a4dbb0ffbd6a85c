#!/usr/bin/perl

# Copyright (C) nginx AI gateway authors

# Providers that fail while they stream, for both dialects of the caller, the
# provider and its fallback: before the first token another one answers, after
# it another one goes on, and where that is impossible the caller is told.

use strict;
use warnings;
use utf8;

use FindBin;
use lib "$FindBin::Bin/lib";

use JSON::PP;
use Test::More;

use AI::Client;
use AI::Gateway;
use AI::Provider;
use AI::Rescue;
use AI::Wellformed;

my $missing = AI::Gateway::missing();
plan skip_all => $missing if $missing;
plan skip_all => 'real time' if $ENV{TEST_AI_VALGRIND};

binmode Test::More->builder->$_, ':encoding(UTF-8)'
    for qw(output failure_output todo_output);

my $text = 'Zażółć gęślą jaźń, said the clerk — "twice", with a \\ and a'
    . " line\nbreak, a\ttab – then 日本語の文字 and the ships 🚢🚀 left for"
    . ' Đà Nẵng, naïve and free, one by one by one by one, until the café'
    . ' was quiet again and no word was lost.';

my $words = () = $text =~ /\s*\S+/g;

# events of a script begin at 1, the head is 0; sleeps are in between

sub is_text {
    my ($a) = @_;
    return $a->[0] eq 'chunk'
           && $a->[1] =~ /"content":"[^"]|"type":"text_delta"/;
}

# index of the action that sends the n-th word

sub word {
    my ($s, $n) = @_;

    for my $i (0 .. $#$s) {
        return $i if is_text($s->[$i]) && --$n == 0;
    }

    die "no such word";
}

# the first n words of a healthy stream, and what comes then

sub after {
    my ($n, @then) = @_;

    return sub {
        my ($req, $d, $nth, $healthy) = @_;
        my $s = $healthy->();
        my $i = word($s, $n);

        return [ @$s[0 .. $i],
                 map { ref eq 'CODE' ? $_->($d, $s, $i) : $_ } @then ];
    };
}

sub error_event {
    my ($d, $type, $message) = @_;

    return [ 'chunk', $d eq 'a'
        ? 'event: error' . "\ndata: " . encode({ type => 'error', error =>
            { type => $type, message => $message } }) . "\n\n"
        : 'data: ' . encode({ error => { message => $message, type => $type,
                                         code => undef } }) . "\n\n" ];
}

sub stream_head {
    return [ 'head', 200, [ 'Content-Type' => 'text/event-stream', @_ ] ];
}

# a piece of the event that sends the word after the n-th: up to the match

sub cut_in {
    my ($n, $re) = @_;

    return after($n, sub {
        my ($d, $s, $i) = @_;

        for my $k ($i + 1 .. $#$s) {
            next if !is_text($s->[$k]);
            next if $s->[$k][1] !~ /$re/;

            my $piece = substr $s->[$k][1], 0, $-[1];
            return (map({ $s->[$_] } $i + 1 .. $k - 1), [ 'chunk', $piece ],
                    [ 'sleep', 20 ], [ 'close' ]);
        }

        die "nothing matches $re";
    });
}

# kind: own (the first one's answer is whole), early (it fails before the
# first token), late (after it).  Of an error: status (early) and the types of
# the error for (OpenAI's, Anthropic's) callers

my @server = ('server_error', 'api_error');
my @timeout = ('server_error', 'timeout_error');
my @overloaded = ('server_error', 'overloaded_error');

my $first = 'no event yet';

my %faults = (
    healthy => { kind => 'own', script => sub { $_[3]->() } },

    # before the first token

    error_first => { kind => 'early', status => 503, types => \@overloaded,
        script => sub { [ stream_head(), error_event($_[1],
            'overloaded_error', 'Overloaded'), [ 'end' ] ] } },

    error_second => { kind => 'early', status => 503, types => \@overloaded,
        script => sub {
            my $s = $_[3]->();
            [ @$s[0, 1], error_event($_[1], 'overloaded_error', 'Overloaded'),
              [ 'end' ] ] } },

    empty => { kind => 'early', status => 502, types => \@server,
        script => sub { [ stream_head(), [ 'end' ] ] } },

    empty_length => { kind => 'early', status => 502, types => \@server,
        script => sub { [ stream_head('Content-Length' => 0), [ 'end' ] ] } },

    empty_cut => { kind => 'early', status => 502, types => \@server,
        script => sub { [ stream_head(), [ 'sleep', 50 ], [ 'close' ] ] } },

    only_done => { kind => 'early', status => 502, types => \@server,
        script => sub { [ stream_head(), [ 'chunk', $_[1] eq 'a'
            ? "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
            : "data: [DONE]\n\n" ], [ 'end' ] ] } },

    comments => { kind => 'early', status => 504, types => \@timeout,
        script => sub { [ stream_head(),
            map({ [ 'chunk', ": ping\n\n" ], [ 'sleep', 250 ] } 1 .. 14),
            [ 'stall' ] ] } },

    pings => { kind => 'early', status => 504, types => \@timeout,
        script => sub { [ stream_head(),
            map({ [ 'chunk', "event: ping\ndata: {\"type\":\"ping\"}\n\n" ],
                  [ 'sleep', 250 ] } 1 .. 14), [ 'stall' ] ] } },

    role => { kind => 'early', status => 504, types => \@timeout,
        script => sub { [ @{ $_[3]->() }[0, 1], [ 'stall' ] ] } },

    silence => { kind => 'early', status => 504, types => \@timeout,
        script => sub { [ stream_head(), [ 'stall' ] ] } },

    html => { kind => 'early', status => 502, types => \@server,
        script => sub {
            [ [ 'head', 200, { 'Content-Type' => 'text/html' } ],
              [ 'chunk', '<html>Welcome</html>' ], [ 'end' ] ] } },

    html_events => { kind => 'early', status => 502, types => \@server,
        script => sub { [ stream_head(),
            [ 'chunk', '<html>Welcome</html>' ], [ 'end' ] ] } },

    error_200 => { kind => 'early', status => 503, types => \@overloaded,
        script => sub {
            json_script(200, $_[1] eq 'a'
                ? { type => 'error', error => { type => 'overloaded_error',
                                                message => 'Overloaded' } }
                : { error => { message => 'Overloaded', code => 503 } }) } },

    s529 => { kind => 'early', status => 529, types => \@overloaded,
        script => sub {
            json_script(529, { type => 'error', error => {
                type => 'overloaded_error', message => 'Overloaded' } }) } },

    garbled_head => { kind => 'early', status => 502, types => \@server,
        script => sub { [ stream_head(), [ 'raw', "nonsense\r\n" ],
                          [ 'stall' ] ] } },

    # after it

    cut_1 => { kind => 'late', types => \@server,
        script => after(1, [ 'sleep', 20 ], [ 'close' ]) },

    cut_7 => { kind => 'late', types => \@server,
        script => after(7, [ 'close' ]) },

    cut_all => { kind => 'late', types => \@server,
        script => after($words, [ 'close' ]) },

    cut_chunk => { kind => 'late', types => \@server,
        script => after(9, [ 'raw', "40\r\ndata: {\"id" ], [ 'close' ]) },

    cut_reset => { kind => 'late', types => \@server,
        script => after(9, [ 'sleep', 50 ], [ 'reset' ]) },

    # an end of the HTTP message that is not one of the answer
    ended => { kind => 'late', types => \@server,
        script => after(9, [ 'end' ]) },

    bad_chunk => { kind => 'late', types => \@server,
        script => after(9, [ 'raw', "xyz\r\n" ], [ 'stall' ]) },

    silence_middle => { kind => 'late', types => \@timeout,
        script => after(9, [ 'stall' ]) },

    comments_middle => { kind => 'late', types => \@timeout,
        script => after(9, map({ [ 'sleep', 250 ], [ 'chunk', ": x\n\n" ] }
                               1 .. 14), [ 'stall' ]) },

    error_middle => { kind => 'late', types => \@overloaded,
        script => after(9, sub { error_event($_[0], 'overloaded_error',
                                             'Overloaded') }, [ 'end' ]) },

    error_string => { kind => 'late', types => \@server,
        script => after(9, sub { [ 'chunk', $_[0] eq 'a'
            ? "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":"
              . "\"api_error\",\"message\":\"x\"}}\n\n"
            : "data: {\"error\":\"engine died\"}\n\n" ] }, [ 'close' ]) },

    cut_utf8 => { kind => 'late', types => \@server,
        script => cut_in(12, qr/\xe6\x97()\xa5/) },

    cut_utf8_4 => { kind => 'late', types => \@server,
        script => cut_in(12, qr/\xf0\x9f\x9a()\xa2/) },

    cut_escape => { kind => 'late', types => \@server,
        script => cut_in(5, qr/\\()\\/) },

    cut_quote => { kind => 'late', types => \@server,
        script => cut_in(5, qr/\\()"/) },

    cut_name => { kind => 'late', types => \@server,
        script => after(9, sub { [ 'chunk', $_[0] eq 'a'
            ? "event: content_bl" : "dat" ] }, [ 'close' ]) },

    # complete, whatever the transport does

    no_done => { kind => 'own', script => sub {
        my $s = $_[3]->(done => 0); $s } },

    no_blank_line => { kind => 'own', script => sub {
        my $s = $_[3]->(done => 0);
        $s->[-2][1] =~ s/\n\n$/\n/ or die;
        $s } },

    no_line_end => { kind => 'own', script => sub {
        my $s = $_[3]->(done => 0);
        $s->[-2][1] =~ s/\n\n$// or die;
        $s } },

    done_cut => { kind => 'own', script => sub {
        my $s = $_[3]->();
        [ @$s[0 .. $#$s - 1], [ 'close' ] ] } },

    done_stall => { kind => 'own', script => sub {
        my $s = $_[3]->();
        [ @$s[0 .. $#$s - 1], [ 'stall' ] ] } },

    done_garbage => { kind => 'own', script => sub {
        my $s = $_[3]->();
        [ @$s[0 .. $#$s - 1], [ 'chunk', "data: {\"x\":\n\n: bye\n\n" ],
          [ 'end' ] ] } },

    no_usage => { kind => 'own', usage => 0, counted => 1, script => sub {
        $_[3]->(usage => undef) } },

    bad_event => { kind => 'own', script => sub {
        my $s = $_[3]->();
        splice @$s, word($s, 5), 0, [ 'chunk', "data: {\"id\":\"x\",\"ch\n\n" ];
        $s } },

    crlf => { kind => 'own', script => sub {
        my $s = $_[3]->();
        for (grep { $_->[0] eq 'chunk' } @$s) { $_->[1] =~ s/\n/\r\n/g }
        $s } },

    pieces => { kind => 'own', script => sub {
        my $s = $_[3]->(interval => 0);
        [ map { $_->[0] eq 'chunk'
                ? (map { [ 'chunk', $_ ] } unpack '(a5)*', $_->[1]) : $_ }
          @$s ] } },

    bom => { kind => 'own', script => sub {
        my $s = $_[3]->();
        $s->[1][1] = "\xef\xbb\xbf$s->[1][1]";
        $s } },

    # a whole answer where a stream was asked for
    json => { kind => 'own', script => sub { $_[3]->(stream => 0) } },

    close_delimited => { kind => 'own', script => sub {
        my $s = $_[3]->();
        $s->[0] = stream_head(Connection => 'close');
        $s } },
);

for my $f (values %faults) {
    $f->{more} = 'retry off; recover continue;';
}

# the same with a fallback that is told to continue what was delivered

for my $f (qw(cut_1 cut_7 cut_all silence_middle cut_utf8 error_middle)) {
    $faults{"${f}_prefill"} = { %{ $faults{$f} }, name => $f, prefill => 1,
                                fallback => 'prefill=on' };
}


# those that are no rows of the matrix

my $tool = { id => 'call_1', name => 'get_weather', n => 6,
             args => '{"city":"Đà Nẵng","unit":"celsius","days":5}' };

my %single = (
    tool_cut => { script => sub {
        my ($req, $d, $nth, $healthy) = @_;
        my $s = $healthy->(text => 'Let me see.', tools => [ $tool ]);
        my @i = grep { $s->[$_][0] eq 'chunk' && $s->[$_][1] =~
                       /"arguments":"[^"]|input_json_delta/ } 0 .. $#$s;
        [ @$s[0 .. $i[2]], [ 'close' ] ] } },

    tool_start_cut => { script => sub {
        my ($req, $d, $nth, $healthy) = @_;
        my $s = $healthy->(text => 'Let me see.', tools => [ $tool ]);
        my ($i) = grep { $s->[$_][0] eq 'chunk'
                         && $s->[$_][1] =~ /get_weather/ } 0 .. $#$s;
        [ @$s[0 .. $i], [ 'close' ] ] } },

    # what it says differs from what the fallback says
    differs => { script => sub {
        my $s = $_[3]->(text => 'Zażółć another text than the other one is');
        [ @$s[0 .. word($s, 4)], [ 'close' ] ] } },

    longer => { script => sub {
        my $s = $_[3]->(text => "$text And a word more.");
        [ @$s[0 .. word($s, $words + 2)], [ 'close' ] ] } },

    off => { script => after(9, [ 'close' ]), more => 'recover off;' },

    # more was delivered than is kept
    small => { more => 'recover continue max=1k;', script => sub {
        my $s = $_[3]->(text => $text x 6);
        [ @$s[0 .. word($s, 5 * $words)], [ 'close' ] ] } },

    finish_cut => { script => sub {
        my $s = $_[3]->();
        my ($i) = grep { $s->[$_][0] eq 'chunk' && $s->[$_][1] =~
                         /"finish_reason":"|"stop_reason":"/ } 0 .. $#$s;
        [ @$s[0 .. $i], [ 'close' ] ] } },

    finish_reset => { script => sub {
        my $s = $_[3]->();
        my ($i) = grep { $s->[$_][0] eq 'chunk' && $s->[$_][1] =~
                         /"finish_reason":"|"stop_reason":"/ } 0 .. $#$s;
        [ @$s[0 .. $i], [ 'sleep', 50 ], [ 'reset' ] ] } },

    finish_stall => { script => sub {
        my $s = $_[3]->();
        my ($i) = grep { $s->[$_][0] eq 'chunk' && $s->[$_][1] =~
                         /"finish_reason":"|"stop_reason":"/ } 0 .. $#$s;
        [ @$s[0 .. $i], [ 'stall' ] ] } },

    # dies again and again, later each time
    deaths => { script => sub { after(5 * $_[2], [ 'close' ])->(@_) },
                more => 'retry 3 backoff=50ms..100ms; recover continue;' },

    s503 => { script => sub {
        json_script(503, { error => { message => 'Overloaded',
                                      type => 'server_error' } }) } },

    die_20 => { script => after(20, [ 'close' ]) },
);

for my $f (values %single) {
    $f->{more} //= 'recover continue;';
    $f->{more} = "retry off; $f->{more}" if $f->{more} !~ /retry/;
}

my $x = AI::Rescue->new(faults => { %faults, %single }, text => $text,
                        conf => <<'END');
    ai_model chain-o { target bad-o/up-cut_7; fallback bad-a/up-die_20;
                       fallback good-o/good-chain; retry off;
                       recover continue; }
    ai_model chain-a { target bad-a/up-cut_7; fallback bad-o/up-die_20;
                       fallback good-a/good-chain prefill=on; retry off;
                       recover continue; }
    ai_model down-o  { target bad-o/up-cut_7; fallback bad-o/up-s503;
                       fallback bad-a/up-s503; retry off;
                       recover continue; }
    ai_model down-a  { target bad-a/up-cut_7; fallback bad-o/up-s503;
                       fallback bad-a/up-s503; retry off;
                       recover continue; }
END

# those that wait cost nothing, the others run a few at a time

my (@quick, @slow, %by_fault);

for my $f (sort keys %faults) {
    my $list = $f =~ /silence|stall|comments|pings|role|garbled|bad_chunk/
               ? \@slow : \@quick;

    for my $caller ('o', 'a') {
        push @$list, map { [ $caller, "$f-$_", stream => 1 ] }
                     'o', 'a', 'oo', 'oa', 'ao', 'aa';
    }
}

for ($x->all(100, @slow), $x->all(24, @quick)) {
    my ($f, $route) = $_->{asked} =~ /(.*)-(.*)/;
    push @{ $by_fault{$f} }, [ $route, $_ ];
}

$x->read_logs;

for my $f (sort keys %faults) {
    subtest $f => sub { check($faults{$f}, @$_) for @{ $by_fault{$f} } };
}

sub whole {
    my ($r, $name, %opt) = @_;

    is($r->{status}, 200, "$name: status") or diag($r->{body});
    is($r->text, $text, "$name: text") or diag(tail($r));
    is_deeply([ AI::Wellformed::stream($r, $AI::Rescue::dialect{
                    $r->{caller} }, %opt) ], [], "$name: well-formed")
        or diag(tail($r));
}

sub tail { utf8::decode(my $s = substr $_[0]{body}, -600); return "... $s" }

# a stream that says that it failed: what came before is a part of the text,
# and nothing says that it is complete

sub broken {
    my ($r, $name, $types, $whole) = @_;
    my $e = AI::Wellformed::error($r);
    my $last = (grep { defined $_->{data} } @{ $r->{events} })[-1] // {};

    is($r->{status}, 200, "$name: status") or diag($r->{body});
    ok($r->{done}, "$name: HTTP") or diag($r->{error});
    ok($e, "$name: error event") or diag(tail($r));
    is($last->{event}, $r->{caller} eq 'a' ? 'error' : undef, "$name: name");
    is($e->{type}, $types->[ $r->{caller} eq 'a' ? 1 : 0 ], "$name: type")
        or diag(tail($r));
    unlike($r->{body}, qr/\[DONE\]|message_stop/, "$name: not complete");
    ok(length($r->text) && index($whole // $text, $r->text) == 0,
       "$name: text so far")
        or diag(tail($r));
}

sub check {
    my ($fault, $route, $r) = @_;
    my $name = "caller $r->{caller}, providers $route";
    my $alone = length $route == 1;
    my $kind = $fault->{kind};
    my @bad = $x->bad($r);
    my @good = $x->good($r);

    is(scalar @bad, 1, "$name: asked once");

    if ($kind eq 'own' || !$alone) {
        is(scalar @good, $kind eq 'own' ? 0 : 1, "$name: fallback");
        whole($r, $name, defined $fault->{usage} ? () : (usage => 1));

        like(AI::Wellformed::finish($r) // '', qr/^(?:stop|end_turn)$/,
             "$name: finish");

        if ($kind eq 'late') {
            my $last = eval { decode_json($good[0]{body})->{messages}[-1] };
            is($last->{role}, $fault->{prefill} ? 'assistant' : 'user',
               "$name: " . ($fault->{prefill} ? 'continued' : 'restarted'));
        }

        is($x->logged($r)->{u}, 'counted', "$name: usage is counted")
            if $fault->{counted} && $route =~ /^o/;

        return;
    }

    if ($kind eq 'late') {
        broken($r, $name, $fault->{types});
        return;
    }

    my $status = AI::Rescue::status($fault->{status}, $r->{caller}, $route);

    is($r->{status}, $status, "$name: status") or diag($r->{body});
    is((AI::Wellformed::error($r) // {})->{type},
       $fault->{types}[ $r->{caller} eq 'a' ? 1 : 0 ], "$name: type")
        or diag($r->{body});
}

# cases of their own

my @more;

for my $caller ('o', 'a') {
    for my $route (qw(oo oa ao aa)) {
        push @more, map { [ $caller, "$_-$route", stream => 1 ] }
                    qw(tool_cut tool_start_cut differs longer off small
                       finish_cut finish_reset finish_stall);
        # it counts its requests
        push @more, [ $caller, "deaths-$route", stream => 1 ];
    }

    push @more, map { [ $caller, $_, stream => 1 ] }
                qw(chain-o chain-a down-o down-a);
}

my @answers = $x->all(24, @more);
$x->read_logs;

for my $r (@answers) {
    my ($f) = $r->{asked} =~ /^(chain|down|.*(?=-))/;
    my $name = "caller $r->{caller}, $r->{asked}";
    my $good = $x->good($r);

    if ($f =~ /^tool/) {
        my $e = AI::Wellformed::error($r);

        is($r->{status}, 200, "$name: status");
        ok($e, "$name: error event") or diag(tail($r));
        unlike($r->{body}, qr/\[DONE\]|message_stop/, "$name: not complete");
        like($r->{body}, qr/get_weather/, "$name: the call had begun");
        is($r->text, 'Let me see.', "$name: text");
        is($good, 0, "$name: fallback is not asked");

    } elsif ($f eq 'differs' || $f eq 'longer') {
        ok(AI::Wellformed::error($r), "$name: error event") or diag(tail($r));
        unlike($r->{body}, qr/\[DONE\]|message_stop/, "$name: not complete");
        is($good, 1, "$name: fallback was asked");

        my $said = $f eq 'differs'
                   ? 'Zażółć another text than' : "$text And a";
        is($r->text, $said, "$name: nothing is added");

    } elsif ($f eq 'off' || $f eq 'small') {
        broken($r, $name, \@server, $f eq 'small' ? $text x 6 : $text);
        is($good, 0, "$name: fallback is not asked");

    } elsif ($f =~ /^finish_/) {
        # the answer is complete, only its usage may be missing
        whole($r, $name);
        is($good, 0, "$name: fallback is not asked");

    } elsif ($f eq 'deaths') {
        whole($r, $name, usage => 1);

    } elsif ($f eq 'chain') {
        whole($r, $name, usage => 1);
        is(scalar $x->bad($r), 2, "$name: two deaths");
        is($good, 1, "$name: the third one ends it");

    } else {
        broken($r, $name, \@overloaded);
        is(scalar $x->bad($r), 3, "$name: all were asked");
    }
}

is_deeply([ $x->strays ], [], 'each provider has got its own requests');

$x->{gw}->finish;

done_testing();
