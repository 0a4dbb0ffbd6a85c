package AI::Wellformed;

# Copyright (C) nginx AI gateway authors

# What a strict SDK would complain about in an answer of AI::Client:
#
#     is_deeply([ AI::Wellformed::stream($r, 'openai') ], [], 'well-formed');
#
# Options: usage (there must be one).  And what an answer says, whichever the
# dialect, streamed or not: model(), usage(), finish(), text(), error().

use strict;
use warnings;

use Encode ();
use JSON::PP;

# problems of a whole streamed answer

sub stream {
    my ($r, $dialect, %opt) = @_;
    my $type = $r->{headers}{'content-type'} // '';

    return "status $r->{status}"  if $r->{status} != 200;
    return "content type $type"   if $type !~ m{^text/event-stream};
    return "HTTP: $r->{error}"    if !$r->{done};
    return 'bytes behind the last event' if length $r->{sse};

    my $body = $r->{body};

    return 'invalid UTF-8'
        if !eval { Encode::decode('UTF-8', $body, Encode::FB_CROAK); 1 };

    my @events = grep { defined $_->{data} } @{ $r->{events} };

    return 'no event' if !@events;

    return $dialect eq 'anthropic' ? anthropic($r, \@events, %opt)
                                   : openai($r, \@events, %opt);
}

sub openai {
    my ($r, $events, %opt) = @_;
    my (@bad, %seen, $done, $finished, $roles, $usages);
    my $n = 0;

    for my $e (@$events) {
        $n++;

        if ($done) {
            push @bad, 'an event behind [DONE]';
            last;
        }

        if ($e->{data} eq '[DONE]') {
            $done = 1;
            next;
        }

        my $c = eval { decode_json($e->{data}) };

        if (ref $c ne 'HASH') {
            push @bad, "event $n is not JSON: $e->{data}";
            next;
        }

        if ($c->{error}) {
            push @bad, "error: $c->{error}{message}";
            next;
        }

        push @bad, "event $n is not a chunk"
            if ($c->{object} // '') ne 'chat.completion.chunk'
               || ref $c->{choices} ne 'ARRAY';

        $seen{$_}{ $c->{$_} // '' } = 1 for qw(id model created);

        if ($c->{usage}) {
            $usages++;
            push @bad, 'usage before the end' if !$finished;
        }

        for my $choice (@{ $c->{choices} // [] }) {
            my $delta = $choice->{delta} // {};

            if ($delta->{role}) {
                $roles++;
                push @bad, "role in event $n" if $n != 1;
            }

            push @bad, 'text behind finish_reason'
                if $finished && length($delta->{content} // '');

            $finished++ if defined $choice->{finish_reason};
        }
    }

    for (sort keys %seen) {
        my @values = sort keys %{ $seen{$_} };
        push @bad, "$_ changes: @values" if @values > 1;
    }

    push @bad, 'no [DONE]'                if !$done;
    push @bad, 'no role'                  if !$roles;
    push @bad, 'no finish_reason'         if !$finished;
    push @bad, 'several finish_reason'    if ($finished // 0) > 1;
    push @bad, 'no usage'                 if $opt{usage} && !$usages;
    push @bad, 'usage was not asked for'  if defined $opt{usage}
                                             && !$opt{usage} && $usages;
    push @bad, 'several usages'           if ($usages // 0) > 1;

    return @bad;
}

sub anthropic {
    my ($r, $events, %opt) = @_;
    my (@bad, $started, $open, $stopped, $delta, $usage);
    my $next = 0;

    for my $e (@$events) {
        my $c = eval { decode_json($e->{data}) };

        if (ref $c ne 'HASH') {
            push @bad, "an event is not JSON: $e->{data}";
            next;
        }

        my $type = $c->{type} // '';

        push @bad, "event \"" . ($e->{event} // '') . "\" is a \"$type\""
            if ($e->{event} // '') ne $type;

        next if $type eq 'ping';

        if ($type eq 'error') {
            push @bad, "error: $c->{error}{message}";
            next;
        }

        push @bad, "\"$type\" behind message_stop" if $stopped;

        if ($type eq 'message_start') {
            push @bad, 'several message_start' if $started++;
            push @bad, 'no usage in message_start'
                if ref $c->{message}{usage} ne 'HASH';
            next;
        }

        push @bad, "\"$type\" before message_start" if !$started;

        if ($type eq 'content_block_start') {
            push @bad, 'a block in a block' if defined $open;
            push @bad, "block $c->{index}, not $next" if $c->{index} != $next;
            push @bad, 'a block behind message_delta' if $delta;
            $open = $c->{index};
            $next++;

        } elsif ($type eq 'content_block_delta') {
            push @bad, 'a delta outside of its block'
                if !defined $open || $open != $c->{index};

        } elsif ($type eq 'content_block_stop') {
            push @bad, 'end of another block'
                if !defined $open || $open != $c->{index};
            $open = undef;

        } elsif ($type eq 'message_delta') {
            push @bad, 'message_delta in a block' if defined $open;
            push @bad, 'several message_delta' if $delta++;
            push @bad, 'no stop_reason' if !$c->{delta}{stop_reason};
            $usage = $c->{usage};

        } elsif ($type eq 'message_stop') {
            push @bad, 'several message_stop' if $stopped++;

        } else {
            push @bad, "unknown \"$type\"";
        }
    }

    push @bad, 'no message_delta'  if !$delta;
    push @bad, 'no message_stop'   if !$stopped;
    push @bad, 'no usage'          if $opt{usage}
                                      && !defined $usage->{output_tokens};

    return @bad;
}

# bodies: the one of an unstreamed answer, or the events of a stream

sub parts {
    my ($r) = @_;
    my @chunks = grep { ref eq 'HASH' } $r->chunks;

    return @chunks if @chunks;
    return grep { ref eq 'HASH' } $r->json;
}

sub model {
    my ($r) = @_;

    for (parts($r)) {
        my $m = $_->{message} ? $_->{message}{model} : $_->{model};
        return $m if defined $m;
    }

    return '';
}

# output tokens

sub usage {
    my ($r) = @_;
    my $n;

    for (grep { $_->{usage} } parts($r)) {
        $n = $_->{usage}{completion_tokens} // $_->{usage}{output_tokens}
             // $n;
    }

    return $n;
}

sub finish {
    my ($r) = @_;
    my $finish;

    for my $c (parts($r)) {
        $finish = $_->{finish_reason} // $finish for @{ $c->{choices} // [] };
        $finish = $c->{stop_reason} // $c->{delta}{stop_reason} // $finish;
    }

    return $finish;
}

sub text {
    my ($r) = @_;
    my $json = $r->json;

    return $r->text if ref $json ne 'HASH';

    return join '', map { $_->{message}{content} // '' }
                    @{ $json->{choices} } if $json->{choices};

    return join '', map { $_->{text} // '' } @{ $json->{content} }
        if ref $json->{content};

    return '';
}

# the error object of a body, or of the last event of a stream

sub error {
    my ($r) = @_;
    my ($last) = (parts($r))[-1];

    return ref $last eq 'HASH' && ref $last->{error} eq 'HASH'
           ? $last->{error} : undef;
}

1;
