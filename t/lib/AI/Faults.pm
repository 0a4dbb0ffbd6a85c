package AI::Faults;

# Copyright (C) nginx AI gateway authors

# A handler of AI::Provider that fails in the 16 ways of the failover
# benchmark; the model's name (after the last "/") chooses, the path chooses
# the dialect: OpenAI, or Anthropic where it ends with "/messages".
#
#     my $p = AI::Provider->start(AI::Faults::handler('fast'));
#
#     fb-ok            healthy
#     fb-ok-noprefill  healthy, refuses a last message of the assistant
#     s01  429 once, Retry-After: 2     s09  silence after 20 words, then close
#     s02  429 always                   s10  an event of invalid JSON before
#     s03  500 once                          the tenth word
#     s04  503 always                   s11  no terminal event
#     s05  RST once, before the header  s12  400 context_length_exceeded
#     s06  no answer                    s13  400 content_policy_violation
#     s07  header, silence, answer      s14  as s08
#     s08  cut after 40 of 60 words     s15  503 for a while after a reset
#                                       s16  as s04
#
# What happens "once" happens again after a reset of the provider.

use strict;
use warnings;

use Time::HiRes qw(time);

use AI::Provider;

# interval, slow, stall, dead: ms; flap: seconds

our %speeds = (
    full => { interval => 15, slow => 20000, stall => 30000, dead => 120000,
              flap => 60 },
    fast => { interval => 5, slow => 3000, stall => 4000, dead => 15000,
              flap => 6 },
);

our $text = <<'END';
The lighthouse keeper counted every ship that passed the point and wrote
its name in a green book. On clear nights there were many names; in fog,
only sounds. She learned to tell a trawler from a ferry by its engine, and
a friend from a stranger by how long the horn was held before the sea took
it back.
END

$text =~ s/\s+/ /g;
$text =~ s/ $//;

# speed: "full", "fast", or a hash of what differs from "fast"; a list of
# arguments for AI::Provider->start

sub handler {
    my ($speed) = @_;
    my $t = ref $speed ? { %{ $speeds{fast} }, %$speed }
                       : $speeds{$speed // 'fast'};
    my ($start, %count) = (time());

    return (
        on_reset => sub { $start = time(); %count = () },
        handler => sub {
            my ($req) = @_;

            if ($req->{path} =~ m{/models$}) {
                return json_script(200, { object => 'list', data => [
                    map { { id => $_, object => 'model', created => 0,
                            owned_by => 'test' } }
                    'fb-ok', 'fb-ok-noprefill',
                    map { sprintf 's%02d', $_ } 1 .. 16 ] });
            }

            my $model = $req->{json}{model} // '';
            my ($name) = $model =~ m{([^/]*)$};

            return script($req, $name, ++$count{$name}, time() - $start, $t);
        }
    );
}

# what is left of the text when the last message is the assistant's and began
# it; undef when it is not the assistant's

sub prefill {
    my ($req) = @_;
    my $messages = $req->{json}{messages};

    return if ref $messages ne 'ARRAY' || !@$messages;

    my $last = $messages->[-1];

    return if ($last->{role} // '') ne 'assistant';

    my $content = $last->{content} // '';

    if (ref $content) {
        $content = join '', map { $_->{text} // '' } @$content;
    }

    return substr $text, length $content if index($text, $content) == 0;
    return $text;
}

sub script {
    my ($req, $name, $nth, $age, $t) = @_;

    my $anthropic = $req->{path} =~ m{/messages$};
    my $stream = $req->{json}{stream};
    my $rest = prefill($req);

    $name = 's08' if $name eq 's14';
    $name = 's04' if $name eq 's16';

    my $error = sub {
        my ($status, $type, $code, $message, @headers) = @_;

        return json_script($status, $anthropic
            ? { type => 'error', request_id => 'req_1',
                error => { type => $type, message => $message } }
            : { error => { message => $message, type => $type, param => undef,
                           code => $code } }, @headers);
    };

    my $rate = sub {
        return $error->(429, 'rate_limit_error', 'rate_limit_exceeded',
                        'Rate limit reached, please slow down.', @_);
    };

    my $unavailable = sub {
        return $error->(503, $anthropic ? 'overloaded_error' : 'server_error',
                        'service_unavailable',
                        'The server is temporarily overloaded.');
    };

    return $error->(400, 'invalid_request_error', 'invalid_prefill',
                    'This model does not support assistant message prefill.')
        if $name eq 'fb-ok-noprefill' && defined $rest;

    return $rate->('Retry-After' => 2)  if $name eq 's01' && $nth == 1;
    return $rate->()                    if $name eq 's02';
    return $error->(500, $anthropic ? 'api_error' : 'server_error', undef,
                    'The server had an error.') if $name eq 's03' && $nth == 1;
    return $unavailable->()             if $name eq 's04';
    return [ [ 'reset' ] ]              if $name eq 's05' && $nth == 1;
    return [ [ 'sleep', $t->{dead} ], [ 'close' ] ]  if $name eq 's06';
    return $unavailable->()             if $name eq 's15'
                                           && $age < $t->{flap};

    return $error->(400, 'invalid_request_error', 'context_length_exceeded',
                    $anthropic
                    ? 'prompt is too long: 9000 tokens > 8192 maximum'
                    : "This model's maximum context length is 8192 tokens. "
                      . 'However, your messages resulted in 9000 tokens. '
                      . 'Please reduce the length of the messages.')
        if $name eq 's12';

    return $error->(400, 'invalid_request_error', 'content_policy_violation',
                    'Your request was rejected as a result of our safety '
                    . 'system.')
        if $name eq 's13';

    my %answer = (
        text => $rest // $text, model => $req->{json}{model},
        usage => { in => 12 },
    );

    return $stream ? streamed($req, $name, $t, $anthropic, %answer)
                   : unstreamed($name, $t, $anthropic, %answer);
}

sub streamed {
    my ($req, $name, $t, $anthropic, %answer) = @_;

    # OpenAI's usage chunk comes to those who ask
    $answer{usage} = undef
        if !$anthropic && !$req->{json}{stream_options}{include_usage};
    $answer{done} = 0 if $name eq 's11';

    my @events = $anthropic ? anthropic_stream(%answer)
                            : openai_stream(%answer);

    my @script = @{ sse_script(\@events, interval => $t->{interval}) };

    # index of the action that sends the n-th word
    my $word = sub {
        my ($n) = @_;

        for my $i (0 .. $#script) {
            next if $script[$i][0] ne 'chunk';
            next if $script[$i][1]
                    !~ /"content":"[^"]|"type":"text_delta"/;
            return $i if --$n == 0;
        }

        return scalar @script;
    };

    # the head is action 0
    splice @script, 1, 0, [ 'sleep', $t->{slow} ]  if $name eq 's07';

    # the rest of an answer that is shorter than that comes whole

    if ($name eq 's08' && $word->(40) < @script) {
        splice @script, $word->(40) + 1;
        push @script, [ 'close' ];
    }

    if ($name eq 's09' && $word->(20) < @script) {
        splice @script, $word->(20) + 1;
        push @script, [ 'sleep', $t->{stall} ], [ 'close' ];
    }

    if ($name eq 's10') {
        splice @script, $word->(10), 0, [ 'chunk', $anthropic
            ? "event: content_block_delta\ndata: {\"type\":\"content_blo\n\n"
            : "data: {\"id\":\"chatcmpl-1\",\"choices\":[{\"index\":0,\"de\n\n"
        ];
    }

    return \@script;
}

sub unstreamed {
    my ($name, $t, $anthropic, %answer) = @_;

    my $body = $anthropic ? anthropic_body(%answer) : openai_body(%answer);
    my ($head, $chunk, $end) = @{ json_script(200, $body) };

    return [ [ 'sleep', $t->{slow} ], $head, $chunk, $end ]
        if $name eq 's07';

    return [ $head, [ 'chunk', substr $body, 0, int(0.6 * length $body) ],
             [ 'close' ] ]
        if $name eq 's08';

    return [ $head, [ 'sleep', $t->{stall} ], [ 'close' ] ]
        if $name eq 's09';

    return json_script(200, substr($body, 0, int(0.6 * length $body)) . '}{')
        if $name eq 's10';

    return [ $head, $chunk, $end ];
}

1;
