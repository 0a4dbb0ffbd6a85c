package AI::Upstream;

# Copyright (C) nginx AI gateway authors

# Servers that are as strict as the real ones:
#
#     my $p = AI::Upstream->start('openai', key => 'sk-upstream');
#     my $p = AI::Upstream->start('anthropic', key => 'sk-ant-upstream');
#
# They are AI::Provider, with its options and methods.  A request is checked
# for the shape that the provider demands (required, unknown and wrongly typed
# members, the order of turns, ids of tool calls and their results, credentials
# in one place), and a wrong one gets the provider's 400, whose message starts
# with "strict: ".  What is answered depends on the last thing that was said:
#
#     "Say ..."             that text
#     "Describe"            JSON of what was understood, see describe()
#     "Count to 5"          "1 2 3 4 5", a token each; ends at a stop sequence
#                           or at the maximum
#     "Weather in A and B"  a call of the tool get_weather for each
#     "Think about ..."     reasoning, if it was asked for, and a text; "Think
#                           and ..." goes on with what else is asked
#     "Give JSON"           an instance of the schema
#     "Refuse"              a refusal
#     "Fail 429"            an error with this status
#     "Break"               in the middle of a stream, an error
#     "Cut"                 in the middle of a stream, the end of it
#     "Slow"                text in pieces over half a second
#     results of tools      what was called and what came back
#
# The same is answered in either dialect.  Usage: 40 tokens of input, besides
# 12 read from and 5 written to the cache; of output each word is a token, of
# which those of the reasoning are told apart.

use strict;
use warnings;

use B ();
use Digest::SHA qw(sha1_hex sha256_hex);
use JSON::PP;
use MIME::Base64 qw(decode_base64 encode_base64);

use AI::Provider;

our %usage = (fresh => 40, read => 12, written => 5);

my $json = JSON::PP->new->canonical->allow_nonref;

my %models = (
    openai => [ 'gpt-4.1', 'gpt-5.5', 'text-embedding-3-small', 'reasoner',
                'gpt-3.5-turbo-instruct' ],
    anthropic => [ 'claude-sonnet-4-5', 'claude-opus-4-7' ]
);

# dialect; of it also: key, flavour ("vllm": what vLLM knows besides)

sub start {
    my ($class, $dialect, %opt) = @_;
    my $serve = $dialect eq 'openai' ? \&openai : \&anthropic;

    return AI::Provider->start(
        %opt, handler => sub { $serve->($_[0], \%opt) });
}


# types of JSON; a scalar has one until it is used as another

sub type_of {
    my ($v) = @_;

    return 'null' if !defined $v;
    return 'array' if ref $v eq 'ARRAY';
    return 'object' if ref $v eq 'HASH';
    return 'bool' if JSON::PP::is_bool($v);

    my $flags = B::svref_2object(\$v)->FLAGS;

    return 'string' if $flags & B::SVp_POK;
    return $v == int $v ? 'int' : 'number';
}

sub bad {
    my ($path, $what) = @_;
    die { path => $path, message => $what };
}

# A specification is the name of a type, a list of words, { list => spec, min
# => n }, { any => [ specs ] }, { of => { name => spec } } (a name with "!" is
# required, null is allowed where it has "?"), { by => 'type', ... => of },
# or code that is called with the value and its path.

sub check {
    my ($v, $spec, $path) = @_;

    return $spec->($v, $path) if ref $spec eq 'CODE';

    my $type = type_of($v);

    if (!ref $spec) {
        return if $spec eq 'any' || $type eq $spec
                  || ($spec eq 'number' && $type eq 'int');
        bad($path, "expected $spec, got $type");
    }

    if (ref $spec eq 'ARRAY') {
        bad($path, "expected a string, got $type") if $type ne 'string';
        return if grep { $_ eq $v } @$spec;
        bad($path, "unknown value \"$v\"");
    }

    if ($spec->{any} && !$spec->{by}) {
        my @errors;

        for my $one (@{ $spec->{any} }) {
            return if eval { check($v, $one, $path); 1 };
            push @errors, $@;
        }

        # what got furthest says most
        @errors = sort { length $b->{path} <=> length $a->{path} } @errors;
        die $errors[0];
    }

    if ($spec->{list}) {
        bad($path, "expected an array, got $type") if $type ne 'array';
        bad($path, 'too few items') if @$v < ($spec->{min} // 0);
        bad($path, 'too many items') if @$v > ($spec->{max} // 100000);
        check($v->[$_], $spec->{list}, "${path}[$_]") for 0 .. $#$v;
        return;
    }

    bad($path, "expected an object, got $type") if $type ne 'object';

    if ($spec->{by}) {
        my $word = $v->{$spec->{by}} // '';
        my $of = $spec->{$word}
            // bad("$path.$spec->{by}", "unknown value \"$word\"");
        check($v, { of => { "$spec->{by}!" => 'string', %$of } }, $path);
        return;
    }

    my %known;

    for my $key (keys %{ $spec->{of} }) {
        my ($name, $flags) = $key =~ /^([^!?]+)([!?]*)$/;
        my $where = $path eq '' ? $name : "$path.$name";

        $known{$name} = 1;

        if (!exists $v->{$name}) {
            bad($where, 'field required') if $flags =~ /!/;
            next;
        }

        next if $flags =~ /\?/ && !defined $v->{$name};
        check($v->{$name}, $spec->{of}{$key}, $where);
    }

    for my $name (sort keys %$v) {
        bad($path eq '' ? $name : "$path.$name", 'unknown parameter')
            if !$known{$name};
    }
}

sub matching {
    my ($re) = @_;

    return sub {
        my ($v, $path) = @_;
        check($v, 'string', $path);
        bad($path, "does not match $re: \"$v\"") if $v !~ $re;
    };
}

sub range {
    my ($type, $min, $max) = @_;

    return sub {
        my ($v, $path) = @_;
        check($v, $type, $path);
        bad($path, "$v is not in $min..$max") if $v < $min || $v > $max;
    };
}

sub filled {
    my ($v, $path) = @_;
    check($v, 'string', $path);
    bad($path, 'must be non-empty') if $v !~ /\S/;
}

sub base64 {
    my ($v, $path) = @_;
    check($v, 'string', $path);
    bad($path, 'not base64')
        if $v eq '' || length($v) % 4 || $v !~ m{^[A-Za-z0-9+/]+={0,2}$};
}

# what a picture is must be told as it is

sub picture {
    my ($mime, $data, $path) = @_;
    my $bytes = decode_base64($data);
    my $is = $bytes =~ /^\x89PNG\r\n/ ? 'image/png'
             : $bytes =~ /^\xff\xd8/  ? 'image/jpeg'
             : $bytes =~ /^GIF8/      ? 'image/gif'
             : $bytes =~ /^RIFF/      ? 'image/webp' : 'nothing known';

    bad($path, "said to be $mime, is $is") if $mime ne $is;
}

sub schema {
    my ($v, $path) = @_;
    check($v, 'object', $path);
    bad("$path.type", 'must be "object"') if ($v->{type} // '') ne 'object';
}

# what structured output demands of a schema

sub closed {
    my ($v, $path, $all) = @_;

    return if ref $v ne 'HASH';

    if (($v->{type} // '') eq 'object') {
        bad($path, 'additionalProperties must be false')
            if !JSON::PP::is_bool($v->{additionalProperties})
               || $v->{additionalProperties};

        if ($all) {
            my %required = map { $_ => 1 } @{ $v->{required} // [] };
            my @not = grep { !$required{$_} } keys %{ $v->{properties} };
            bad($path, "required must have \"$not[0]\"") if @not;
        }
    }

    if (!$all) {
        for (qw(minimum maximum minLength maxLength multipleOf)) {
            bad("$path.$_", 'not supported') if exists $v->{$_};
        }
    }

    closed($v->{properties}{$_}, "$path.properties.$_", $all)
        for keys %{ $v->{properties} // {} };
    closed($v->{'$defs'}{$_}, "$path.\$defs.$_", $all)
        for keys %{ $v->{'$defs'} // {} };
    closed($v->{items}, "$path.items", $all) if $v->{items};
    closed($_, "$path.anyOf", $all) for @{ $v->{anyOf} // [] };
}

sub headers {
    my ($req, $opt, %allowed) = @_;
    my $h = $req->{headers};
    my @keys;

    push @keys, $1 if ($h->{authorization} // '') =~ /^Bearer (.*)/;
    push @keys, $h->{'x-api-key'} if exists $h->{'x-api-key'};
    push @keys, $h->{'api-key'} if exists $h->{'api-key'};

    die { status => 401, path => 'authorization', message => 'invalid key' }
        if @keys == 1 && $keys[0] ne $opt->{key};

    bad('headers', @keys . ' credentials') if @keys != 1;

    # a proxy has several clients on a connection
    bad('headers', "$_ was passed on") for grep { exists $h->{$_} }
        qw(proxy-authorization x-goog-api-key te upgrade keep-alive);

    # what is not read may be compressed
    bad('headers', "accept-encoding: $h->{'accept-encoding'}")
        if ($h->{'accept-encoding'} // 'identity') ne 'identity'
           && $req->{method} eq 'POST';

    bad('headers', 'no host') if ($h->{host} // '') eq '';

    if ($req->{method} eq 'POST') {
        bad('headers', 'content-type')
            if ($h->{'content-type'} // '') !~ m{^application/json\b};
        bad('body', 'is no JSON object') if ref $req->{json} ne 'HASH';
    }

    my %seen;

    for (@{ $req->{raw_headers} }) {
        bad('headers', "$_->[0] twice") if $seen{lc $_->[0]}++;
    }
}


# OpenAI

my %tool_name = (name => matching(qr/^[A-Za-z0-9_-]{1,64}$/));

my $text_part = { by => 'type', text => { 'text!' => 'string' } };

my $user_part = {
    by => 'type',
    text => { 'text!' => 'string' },
    image_url => { 'image_url!' => { of => {
        'url!' => \&image_url, detail => [ qw(auto low high original) ]
    } } },
    input_audio => { 'input_audio!' => { of => {
        'data!' => \&base64, 'format!' => [ qw(wav mp3) ]
    } } },
    file => { 'file!' => { of => {
        file_data => 'string', file_id => 'string', filename => 'string'
    } } }
};

my $assistant_part = {
    by => 'type', text => { 'text!' => 'string' },
    refusal => { 'refusal!' => 'string' }
};

sub content {
    my ($part) = @_;
    return { any => [ 'string', { list => $part, min => 1 } ] };
}

sub image_url {
    my ($v, $path) = @_;

    check($v, 'string', $path);
    return if $v =~ m{^https?://[^/]+/\S+$};

    my ($mime, $data) = $v =~ m{^data:(image/\w+);base64,(.*)$}s
        or bad($path, 'neither http: nor data: with an image');
    base64($data, $path);
    picture($mime, $data, $path);
}

my $openai_message = {
    by => 'role',
    system => { 'content!' => content($text_part), name => 'string' },
    developer => { 'content!' => content($text_part), name => 'string' },
    user => { 'content!' => content($user_part), name => 'string' },
    assistant => {
        'content?' => content($assistant_part), name => 'string',
        'refusal?' => 'string', annotations => 'array', 'audio?' => 'object',
        'function_call?' => 'object',
        'tool_calls?' => { min => 1, list => { by => 'type', function => {
            'id!' => matching(qr/^\S{1,64}$/),
            'function!' => { of => {
                'name!' => $tool_name{name}, 'arguments!' => 'string'
            } }
        } } }
    },
    tool => { 'content!' => content($text_part),
              'tool_call_id!' => matching(qr/^\S{1,64}$/) }
};

# what servers of open models want back
my $vllm_message = {
    %$openai_message,
    assistant => { %{ $openai_message->{assistant} },
                   'reasoning_content?' => 'string' }
};

my %openai_chat = (
    'model!' => 'string',
    tools => { min => 1, list => { by => 'type', function => { 'function!' => {
        of => { 'name!' => $tool_name{name}, description => 'string',
                parameters => \&schema, 'strict?' => 'bool' } } } } },
    tool_choice => { any => [
        [ qw(none auto required) ],
        { by => 'type', function => { 'function!' => { of => {
            'name!' => $tool_name{name} } } } }
    ] },
    parallel_tool_calls => 'bool',
    'response_format?' => { by => 'type', text => {}, json_object => {},
        json_schema => { 'json_schema!' => { of => {
            'name!' => $tool_name{name}, description => 'string',
            'strict?' => 'bool', 'schema!' => 'object' } } } },
    'max_completion_tokens?' => range('int', 1, 1e6),
    'max_tokens?' => range('int', 1, 1e6),
    'temperature?' => range('number', 0, 2), 'top_p?' => range('number', 0, 1),
    'n?' => range('int', 1, 128),
    'stop?' => { any => [ 'string', { list => 'string', min => 1,
                                      max => 4 } ] },
    'seed?' => 'int', 'logprobs?' => 'bool', 'store?' => 'bool',
    'frequency_penalty?' => range('number', -2, 2),
    'presence_penalty?' => range('number', -2, 2),
    reasoning_effort => [ qw(none minimal low medium high xhigh max) ],
    verbosity => [ qw(low medium high) ],
    'stream?' => 'bool',
    'stream_options?' => { of => { include_usage => 'bool',
                                   include_obfuscation => 'bool' } },
    user => 'string', safety_identifier => matching(qr/^.{1,128}$/s),
    prompt_cache_key => 'string', 'metadata?' => 'object',
    service_tier => [ qw(auto default flex scale priority fast) ],
);

sub openai {
    my ($req, $opt) = @_;
    my $script = eval { openai_route($req, $opt) };

    return $script if $script;
    die $@ if ref $@ ne 'HASH';

    my $e = $@;
    my $status = $e->{status} // 400;

    return json_script($status, {
        error => { message => $status < 402 ? "strict: $e->{path}: "
                              . "$e->{message}" : $e->{message},
                   type => $status == 429 ? 'requests'
                           : $status < 500 ? 'invalid_request_error'
                           : 'server_error',
                   param => $status == 400 ? $e->{path} : undef,
                   code => $e->{code} // ($status == 401 ? 'invalid_api_key'
                           : $status == 429 ? 'rate_limit_exceeded'
                           : $status == 404 ? 'model_not_found' : undef) }
    }, openai_headers($req), $status == 429 ? ('Retry-After' => 7) : ());
}

sub openai_headers {
    my ($req) = @_;
    return ('x-request-id' => sprintf('req_%016x', $req->{n}),
            'openai-version' => '2020-10-01',
            'openai-processing-ms' => 12, 'openai-organization' => 'org-x');
}

sub openai_route {
    my ($req, $opt) = @_;
    my $body = $req->{json};

    headers($req, $opt);

    bad('headers', "$_ was passed on")
        for grep { /^anthropic-/ } keys %{ $req->{headers} };

    if ($req->{method} eq 'GET') {
        my @list = map { { id => $_, object => 'model', created => 1700000000,
                           owned_by => 'upstream' } } @{ $models{openai} };

        return json_script(200, { object => 'list', data => \@list })
            if $req->{path} eq '/v1/models';

        my ($name) = $req->{path} =~ m{^/v1/models/([^/]+)$};
        my ($one) = grep { $_->{id} eq ($name // '') } @list;

        return json_script(200, $one) if $one;
        die { status => 404, message => "The model does not exist" };
    }

    return openai_chat($req, $opt) if $req->{path} eq '/v1/chat/completions';
    return openai_embeddings($req) if $req->{path} eq '/v1/embeddings';
    return openai_completions($req) if $req->{path} eq '/v1/completions';

    die { status => 404, message => "Invalid URL ($req->{path})", code => '' };
}

sub known_model {
    my ($dialect, $name) = @_;

    return if grep { $_ eq $name } @{ $models{$dialect} };

    die { status => 404, path => 'model',
          message => $dialect eq 'openai'
                     ? "The model `$name` does not exist or you do not have "
                       . 'access to it.' : "model: $name" };
}

sub openai_chat {
    my ($req, $opt) = @_;
    my $body = $req->{json};
    my $vllm = ($opt->{flavour} // '') eq 'vllm';

    check($body, { of => {
        %openai_chat,
        'messages!' => { list => $vllm ? $vllm_message : $openai_message,
                         min => 1 },
        $vllm ? (top_k => 'int') : ()
    } }, '');

    known_model('openai', $body->{model});
    openai_turns($body);

    bad($_, 'only with tools')
        for grep { exists $body->{$_} && !$body->{tools} }
            qw(tool_choice parallel_tool_calls);
    bad('stream_options', 'only with stream')
        if $body->{stream_options} && !$body->{stream};
    bad('max_tokens', 'both of them')
        if $body->{max_tokens} && $body->{max_completion_tokens};
    bad('max_tokens', 'with this model, use max_completion_tokens')
        if $body->{max_tokens} && $body->{model} =~ /^gpt-5/;

    for (qw(temperature top_p)) {
        bad($_, 'unsupported with this model')
            if defined $body->{$_} && $body->{model} =~ /^gpt-5/;
    }

    bad('reasoning_effort', 'unsupported with this model')
        if $body->{reasoning_effort} && $body->{model} =~ /^gpt-4/;

    my $format = $body->{response_format} // {};
    my $schema = $format->{json_schema};

    if ($schema) {
        check($schema->{schema}, \&schema, 'response_format.schema');
        closed($schema->{schema}, 'response_format.schema', 1)
            if $schema->{strict};
    }

    my $choice = $body->{tool_choice};
    my @names = map { $_->{function}{name} } @{ $body->{tools} // [] };

    closed($_->{function}{parameters}, 'tools.parameters', 1)
        for grep { $_->{function}{strict} } @{ $body->{tools} // [] };

    if (ref $choice) {
        $choice = $choice->{function}{name};
        bad('tool_choice', "no tool \"$choice\"")
            if !grep { $_ eq $choice } @names;
        $choice = "=$choice";
    }

    my %ask = (
        system => join("\n", map { flat($_->{content}) }
                             grep { $_->{role} =~ /^(?:system|developer)$/ }
                                  @{ $body->{messages} }),
        turns => openai_canonical($body->{messages}),
        tools => \@names, choice => $choice,
        parallel => $body->{parallel_tool_calls},
        max => $body->{max_completion_tokens} // $body->{max_tokens},
        stop => ref $body->{stop} ? $body->{stop} : [ $body->{stop} // () ],
        temperature => $body->{temperature}, top_p => $body->{top_p},
        user => $body->{safety_identifier} // $body->{user},
        effort => $body->{reasoning_effort}, stream => $body->{stream},
        format => $format->{type}, schema => $schema && $schema->{schema},
        # hidden with OpenAI itself: counted, not shown
        reasons => $vllm || ($body->{reasoning_effort} // 'none') ne 'none',
    );

    my $a = answer(\%ask);

    return openai_reply($req, $a, $vllm);
}

sub flat {
    my ($content) = @_;

    return $content // '' if !ref $content;
    return join '', map { $_->{text} // $_->{refusal} // '' } @$content;
}

# results come right after their calls, all of them and no others

sub openai_turns {
    my ($body) = @_;
    my @messages = @{ $body->{messages} };
    my %open;

    for my $i (0 .. $#messages) {
        my $m = $messages[$i];
        my $path = "messages[$i]";

        if ($m->{role} eq 'tool') {
            bad("$path.tool_call_id",
                "no preceding call \"$m->{tool_call_id}\"")
                if !delete $open{$m->{tool_call_id}};
            next;
        }

        bad($path, 'no tool message for ' . join ', ', sort keys %open)
            if %open;

        next if $m->{role} ne 'assistant';

        bad("$path.content", 'neither content nor tool calls')
            if !defined $m->{content} && !$m->{tool_calls}
               && !defined $m->{refusal};

        for (@{ $m->{tool_calls} // [] }) {
            bad("$path.tool_calls", "two calls \"$_->{id}\"")
                if $open{$_->{id}}++;

            my $args = eval { $json->decode($_->{function}{arguments}) };
            bad("$path.tool_calls.arguments", 'no JSON object')
                if ref $args ne 'HASH';
        }
    }

    bad('messages', 'no tool message for ' . join ', ', sort keys %open)
        if %open;
    bad('messages', 'nobody said anything')
        if !grep { $_->{role} =~ /^(?:user|assistant)$/ } @messages;
}

sub openai_canonical {
    my ($messages) = @_;
    my @turns;
    my %call;

    for my $m (@$messages) {
        next if $m->{role} =~ /^(?:system|developer)$/;

        my @parts;

        push @parts, { type => 'thinking', text => $m->{reasoning_content} }
            if defined $m->{reasoning_content};

        for (ref $m->{content} ? @{ $m->{content} }
             : { type => 'text', text => $m->{content} // '' })
        {
            if ($m->{role} eq 'tool') {
                # all of a message are one result

            } elsif ($_->{type} eq 'image_url') {
                my $url = $_->{image_url}{url};
                push @parts, { type => 'image',
                               $url =~ m{^data:([^;]+);base64,(.*)}s
                               ? (mime => $1, sha => sha1_hex($2))
                               : (url => $url) };

            } elsif ($_->{type} eq 'text' || $_->{type} eq 'refusal') {
                my $text = $_->{text} // $_->{refusal};
                push @parts, { type => 'text', text => $text } if $text ne '';

            } else {
                push @parts, { type => $_->{type} };
            }
        }

        for (@{ $m->{tool_calls} // [] }) {
            $call{$_->{id}} = $_->{function};
            push @parts, { type => 'call', id => $_->{id},
                           name => $_->{function}{name},
                           args => $json->decode($_->{function}{arguments}) };
        }

        if ($m->{role} eq 'tool') {
            my $f = $call{$m->{tool_call_id}};
            push @parts, { type => 'result', id => $m->{tool_call_id},
                           name => $f->{name}, text => flat($m->{content}),
                           args => $json->decode($f->{arguments}) };
        }

        add_turn(\@turns, $m->{role} eq 'assistant' ? 'assistant' : 'user',
                 @parts);
    }

    return \@turns;
}

# turns of one role in a row are one: so one dialect's are as the other's

sub add_turn {
    my ($turns, $role, @parts) = @_;

    push @$turns, { role => $role, parts => [] }
        if !@$turns || $turns->[-1]{role} ne $role;
    push @{ $turns->[-1]{parts} }, @parts;
}

sub openai_reply {
    my ($req, $a, $vllm) = @_;
    my $body = $req->{json};
    my %head = (id => sprintf('chatcmpl-%08x', $req->{n}),
                created => 1700000000 + $req->{n}, model => $body->{model},
                service_tier => 'default', system_fingerprint => 'fp_1');

    my %finish = (tool => 'tool_calls', refusal => 'stop',
                  sequence => 'stop');
    my $finish = $finish{$a->{finish}} // $a->{finish};

    my $cached = { cached_tokens => $usage{read}, audio_tokens => 0,
                   cache_write_tokens => $usage{written} };
    my $in = $usage{fresh} + $usage{read} + $usage{written};
    my $usage = {
        prompt_tokens => $in, completion_tokens => $a->{out},
        total_tokens => $in + $a->{out}, prompt_tokens_details => $cached,
        completion_tokens_details => { reasoning_tokens => $a->{thought},
                                       audio_tokens => 0 }
    };

    my %refusal = $a->{finish} eq 'refusal' ? (refusal => $a->{text}) : ();
    my $text = %refusal ? undef : $a->{text};
    my @calls = map { { id => call_id($req, $_, 'call_'), type => 'function',
                        function => { name => $a->{calls}[$_]{name},
                                      arguments => $json->encode(
                                          $a->{calls}[$_]{args}) } } }
                0 .. $#{ $a->{calls} };

    if (!$body->{stream}) {
        my $message = { role => 'assistant', refusal => undef,
                        annotations => [],
                        content => ($text // '') eq '' && @calls
                                   ? undef : $text,
                        @calls ? (tool_calls => \@calls) : (), %refusal };

        $message->{reasoning_content} = $a->{thinking}
            if $vllm && defined $a->{thinking};

        return json_script(200, {
            %head, object => 'chat.completion', usage => $usage,
            choices => [ { index => 0, message => $message, logprobs => undef,
                           finish_reason => $finish } ]
        }, openai_headers($req));
    }

    my $with_usage = $body->{stream_options}{include_usage};
    my @events;

    my $add = sub {
        my ($choices, %more) = @_;
        push @events, 'data: ' . encode({
            %head, object => 'chat.completion.chunk', choices => $choices,
            obfuscation => 'x' x (@events % 7),
            $with_usage ? (usage => undef) : (), %more
        }) . "\n\n";
    };

    my $delta = sub {
        my ($delta, $reason) = @_;
        $add->([ { index => 0, delta => $delta, logprobs => undef,
                   finish_reason => $reason } ]);
    };

    $delta->({ role => 'assistant', refusal => undef,
               content => @calls ? undef : '' });

    if ($vllm && defined $a->{thinking}) {
        $delta->({ reasoning_content => $_ })
            for AI::Provider::words($a->{thinking});
    }

    my $member = %refusal ? 'refusal' : 'content';
    $delta->({ $member => $_ }) for AI::Provider::words($a->{text});

    for my $i (0 .. $#calls) {
        my ($call, $f) = ($calls[$i], $calls[$i]{function});
        $delta->({ tool_calls => [ { %$call, index => $i, function => {
            name => $f->{name}, arguments => '' } } ] });
        $delta->({ tool_calls => [ { index => $i, function => {
            arguments => $_ } } ] }) for split_text($f->{arguments}, 4);
    }

    if ($a->{broken}) {
        push @events, 'data: ' . encode({ error => {
            message => 'The server had an error', type => 'server_error',
            param => undef, code => undef } }) . "\n\n"
            if $a->{broken} eq 'error';
        return cut_off(\@events, $a, openai_headers($req));
    }

    $delta->({}, $finish);
    $add->([], usage => $usage) if $with_usage;

    return sse_script([ @events, "data: [DONE]\n\n" ],
                      headers => [ openai_headers($req) ],
                      interval => $a->{slow});
}

sub cut_off {
    my ($events, $a, @headers) = @_;
    my $script = sse_script($events, headers => \@headers);

    # without the end of a chunked body when it is cut
    $script->[-1] = [ 'close' ] if $a->{broken} eq 'cut';
    return $script;
}

sub call_id {
    my ($req, $i, $prefix) = @_;
    return $prefix . substr sha256_hex("$req->{n} $i"), 0, 24;
}

sub openai_embeddings {
    my ($req) = @_;
    my $body = $req->{json};

    check($body, { of => {
        'model!' => 'string', user => 'string',
        'input!' => { any => [ 'string', { list => 'string', min => 1 },
                               { list => 'int', min => 1 } ] },
        dimensions => range('int', 1, 4096),
        encoding_format => [ qw(float base64) ]
    } }, '');

    known_model('openai', $body->{model});

    my $input = $body->{input};
    my @inputs = ref $input && type_of($input->[0]) eq 'string'
                 ? @$input : ($input);
    my @data;

    for my $i (0 .. $#inputs) {
        # exact in single precision
        my @v = map { ($i + 1) * $_ / 8 } 1 .. ($body->{dimensions} // 4);

        push @data, {
            object => 'embedding', index => $i,
            embedding => ($body->{encoding_format} // 'float') eq 'base64'
                         ? encode_base64(pack('f<*', @v), '') : \@v
        };
    }

    return json_script(200, {
        object => 'list', data => \@data, model => $body->{model},
        usage => { prompt_tokens => 3 * @inputs, total_tokens => 3 * @inputs }
    }, openai_headers($req));
}

sub openai_completions {
    my ($req) = @_;
    my $body = $req->{json};

    check($body, { of => {
        'model!' => 'string',
        'prompt!' => { any => [ 'string', { list => 'string', min => 1 } ] },
        'max_tokens?' => range('int', 1, 1e6), suffix => 'string',
        temperature => 'number', 'stop?' => 'any', echo => 'bool',
        'stream?' => 'bool', stream_options => 'object', n => 'int'
    } }, '');

    known_model('openai', $body->{model});

    my $prompt = ref $body->{prompt} ? $body->{prompt}[0] : $body->{prompt};
    my $a = answer({
        turns => [ { role => 'user',
                     parts => [ { type => 'text', text => $prompt } ] } ],
        stop => ref $body->{stop} ? $body->{stop} : [ $body->{stop} // () ],
        max => $body->{max_tokens}, tools => []
    });

    my $usage = { prompt_tokens => $usage{fresh},
                  completion_tokens => $a->{out},
                  total_tokens => $usage{fresh} + $a->{out} };
    my %head = (id => "cmpl-$req->{n}", object => 'text_completion',
                created => 1700000000, model => $body->{model});
    my $finish = $a->{finish} eq 'sequence' ? 'stop' : $a->{finish};

    my $choice = sub {
        my ($text, $reason) = @_;
        return [ { index => 0, text => $text, logprobs => undef,
                   finish_reason => $reason } ];
    };

    return json_script(200, { %head, usage => $usage,
                              choices => $choice->($a->{text}, $finish) },
                       openai_headers($req)) if !$body->{stream};

    my @events = map { { %head, choices => $choice->($_, undef) } }
                 AI::Provider::words($a->{text});

    push @events, { %head, choices => $choice->('', $finish) };
    push @events, { %head, choices => [], usage => $usage }
        if ($body->{stream_options} // {})->{include_usage};

    return sse_script([ (map { 'data: ' . encode($_) . "\n\n" } @events),
                        "data: [DONE]\n\n" ]);
}


# Anthropic

my %cache = (
    'cache_control?' => { of => { 'type!' => [ 'ephemeral' ],
                                  ttl => [ qw(5m 1h) ] } }
);

my %text = (text => { 'text!' => \&filled, %cache, 'citations?' => 'array' });

my %image = (image => { 'source!' => {
    by => 'type',
    base64 => {
        'media_type!' => [ map { "image/$_" } qw(jpeg png gif webp) ],
        'data!' => \&base64
    },
    url => { 'url!' => matching(qr{^https?://[^/]+/\S+$}) },
    file => { 'file_id!' => 'string' }
}, %cache });

my %document = (document => {
    'source!' => 'object', 'title?' => 'string', 'context?' => 'string',
    'citations?' => 'object', %cache
});

my $block_id = matching(qr/^[a-zA-Z0-9_-]+$/);
my $block_name = matching(qr/^[a-zA-Z0-9_-]{1,128}$/);

my $anthropic_user = {
    by => 'type', %text, %image, %document,
    tool_result => {
        'tool_use_id!' => $block_id, is_error => 'bool', %cache,
        content => { any => [ 'string', {
            list => { by => 'type', %text, %image, %document }
        } ] }
    }
};

my $anthropic_assistant = {
    by => 'type', %text,
    tool_use => { 'id!' => $block_id, 'name!' => $block_name,
                  'input!' => 'object', 'caller?' => 'object', %cache },
    thinking => { 'thinking!' => 'string', 'signature!' => \&signed },
    redacted_thinking => { 'data!' => \&filled }
};

my $anthropic_system = {
    any => [ \&filled, { list => { by => 'type', %text }, min => 1 } ]
};

my %anthropic_request = (
    'model!' => 'string',
    'system' => $anthropic_system,
    'messages!' => { min => 1, list => {
        by => 'role',
        user => { 'content!' => { any => [
            \&filled, { list => $anthropic_user, min => 1 } ] } },
        assistant => { 'content!' => { any => [
            \&filled, { list => $anthropic_assistant, min => 1 } ] } },
        system => { 'content!' => $anthropic_system }
    } },
    tools => { list => { of => {
        'name!' => $block_name, description => 'string',
        'input_schema!' => \&schema, type => [ 'custom' ],
        'strict?' => 'bool', input_examples => 'array',
        'eager_input_streaming?' => 'bool', defer_loading => 'bool', %cache
    } } },
    tool_choice => {
        by => 'type', none => {},
        auto => { disable_parallel_tool_use => 'bool' },
        any => { disable_parallel_tool_use => 'bool' },
        tool => { 'name!' => $block_name,
                  disable_parallel_tool_use => 'bool' }
    },
    thinking => {
        by => 'type', disabled => {},
        enabled => { 'budget_tokens!' => 'int',
                     display => [ qw(summarized omitted) ] },
        adaptive => { display => [ qw(summarized omitted) ] }
    },
    output_config => { of => {
        effort => [ qw(low medium high xhigh max) ],
        'format?' => { by => 'type', json_schema => {
            'schema!' => \&schema } }
    } },
    %cache
);

my %anthropic_sampling = (
    'max_tokens!' => range('int', 0, 128000),
    temperature => range('number', 0, 1), top_p => range('number', 0, 1),
    top_k => range('int', 0, 1e6), 'stream' => 'bool',
    stop_sequences => { list => \&filled },
    metadata => { of => { 'user_id?' => matching(qr/^.{1,256}$/s) } },
    service_tier => [ qw(auto standard_only) ]
);

# what was thought comes back as it was, with its signature

sub sign {
    my ($text) = @_;
    return encode_base64(pack('H*', sha256_hex("secret $text")), '');
}

sub signed {
    my ($v, $path) = @_;
    check($v, 'string', $path);
}

sub anthropic {
    my ($req, $opt) = @_;
    my $script = eval { anthropic_route($req, $opt) };

    return $script if $script;
    die $@ if ref $@ ne 'HASH';

    my $e = $@;
    my $status = $e->{status} // 400;

    return json_script($status, anthropic_error($status, $status < 402
        ? "strict: $e->{path}: $e->{message}" : $e->{message}, $e->{code}),
        anthropic_headers($req),
        $status == 429 ? ('retry-after' => 7) : ());
}

sub anthropic_error {
    my ($status, $message, $code) = @_;
    my %type = (400 => 'invalid_request_error', 401 => 'authentication_error',
                402 => 'billing_error', 403 => 'permission_error',
                404 => 'not_found_error', 413 => 'request_too_large',
                429 => 'rate_limit_error', 504 => 'timeout_error',
                529 => 'overloaded_error');

    return { type => 'error', request_id => 'req_1', error => {
        type => $type{$status} // 'api_error', message => $message,
        $code ? (details => { error_code => $code }) : () } };
}

sub anthropic_headers {
    my ($req) = @_;
    return ('request-id' => sprintf('req_%016x', $req->{n}),
            'anthropic-organization-id' => 'org-x');
}

sub anthropic_route {
    my ($req, $opt) = @_;

    headers($req, $opt);

    my $version = $req->{headers}{'anthropic-version'}
        // bad('anthropic-version', 'header is required');
    bad('anthropic-version', "\"$version\" is not valid")
        if $version !~ /^20(?:23-06-01|26-10-21)$/;

    if ($req->{method} eq 'GET') {
        my @list = map { { id => $_, type => 'model', display_name => $_,
                           created_at => '2026-01-01T00:00:00Z' } }
                   @{ $models{anthropic} };

        return json_script(200, { data => \@list, has_more => JSON::PP::false,
                                  first_id => $list[0]{id},
                                  last_id => $list[-1]{id} })
            if $req->{path} eq '/v1/models';

        my ($name) = $req->{path} =~ m{^/v1/models/([^/]+)$};
        my ($one) = grep { $_->{id} eq ($name // '') } @list;

        return json_script(200, $one) if $one;
        die { status => 404, message => 'Not found' };
    }

    return anthropic_messages($req, $version)
        if $req->{path} eq '/v1/messages';
    return anthropic_count($req, $version)
        if $req->{path} eq '/v1/messages/count_tokens';

    die { status => 404, message => 'Not found' };
}

sub anthropic_count {
    my ($req) = @_;

    check($req->{json}, { of => { %anthropic_request } }, '');
    known_model('anthropic', $req->{json}{model});
    anthropic_turns($req->{json});

    return json_script(200, { input_tokens => 42 }, anthropic_headers($req));
}

sub anthropic_messages {
    my ($req, $version) = @_;
    my $body = $req->{json};
    my $new = $body->{model} && $body->{model} =~ /opus-4-7/;

    die { path => 'thread', message => 'not for this organization',
          code => 'thread_unsupported_request' } if exists $body->{thread};

    for (qw(temperature top_p top_k)) {
        bad($_, 'Extra inputs are not permitted')
            if exists $body->{$_} && ($version gt '2026' || $new);
    }

    check($body, { of => { %anthropic_request, %anthropic_sampling } }, '');
    known_model('anthropic', $body->{model});

    bad('temperature', 'and `top_p` cannot both be specified')
        if exists $body->{temperature} && exists $body->{top_p};

    my $marks = () = $req->{body} =~ /"cache_control"\s*:\s*\{/g;
    bad('cache_control', "a maximum of 4 blocks, found $marks") if $marks > 4;

    my $choice = $body->{tool_choice};
    my @names = map { $_->{name} } @{ $body->{tools} // [] };
    my %twice;

    closed($_->{input_schema}, 'tools.input_schema', 0)
        for grep { $_->{strict} } @{ $body->{tools} // [] };
    bad('tools', 'names must be unique') if grep { $twice{$_}++ } @names;
    bad('tool_choice', 'may only be specified while providing tools')
        if $choice && !@names;
    bad('tool_choice', "tool \"$choice->{name}\" not found")
        if $choice && $choice->{type} eq 'tool'
           && !grep { $_ eq $choice->{name} } @names;

    my $thinking = ($body->{thinking} // {})->{type} // 'disabled';

    if ($thinking eq 'enabled') {
        my $budget = $body->{thinking}{budget_tokens};

        bad('thinking.type', '"enabled" is not supported for this model')
            if $new;
        bad('thinking.budget_tokens', 'must be at least 1024')
            if $budget < 1024;
        bad('max_tokens', 'must be greater than thinking.budget_tokens')
            if $body->{max_tokens} <= $budget;
    }

    bad('thinking.type', '"adaptive" is not supported for this model')
        if $thinking eq 'adaptive' && !$new;

    if ($thinking ne 'disabled') {
        bad('tool_choice', 'may not force tool use with thinking')
            if $choice && $choice->{type} =~ /^(?:any|tool)$/;
        bad('temperature', 'may only be 1 with thinking')
            if exists $body->{temperature} && $body->{temperature} != 1;
        bad('top_k', 'must be unset with thinking') if exists $body->{top_k};
    }

    my $format = ($body->{output_config} // {})->{format};

    closed($format->{schema}, 'output_config.format.schema', 0) if $format;
    bad('output_config.effort', 'not supported by this model')
        if ($body->{output_config} // {})->{effort} && !$new;

    my $turns = anthropic_turns($body, $thinking ne 'disabled', $new);

    my %choice = (auto => 'auto', none => 'none', any => 'required');
    my $system = $body->{system};
    my $parallel = ($choice // {})->{disable_parallel_tool_use};

    my %ask = (
        system => join("\n", map { flat($_) } grep { defined }
                       ref $system ? (map { $_->{text} } @$system) : $system,
                       map { $_->{content} }
                       grep { $_->{role} eq 'system' } @{ $body->{messages} }),
        turns => $turns, tools => \@names,
        choice => $choice ? $choice{$choice->{type}} // "=$choice->{name}"
                  : undef,
        parallel => defined $parallel
                    ? $parallel ? JSON::PP::false : JSON::PP::true : undef,
        max => $body->{max_tokens}, stop => $body->{stop_sequences} // [],
        temperature => $body->{temperature}, top_p => $body->{top_p},
        user => ($body->{metadata} // {})->{user_id},
        effort => ($body->{output_config} // {})->{effort},
        thinking => $thinking, reasons => $thinking ne 'disabled',
        format => $format ? 'json_schema' : undef,
        schema => $format && $format->{schema}, stream => $body->{stream},
    );

    return anthropic_reply($req, answer(\%ask));
}

# roles, and that all results and no others are in the turn after their calls

sub anthropic_turns {
    my ($body, $thinking, $new) = @_;
    my (@turns, @all, %seen, %call);

    for my $i (0 .. $#{ $body->{messages} }) {
        my $m = $body->{messages}[$i];
        my @blocks = ref $m->{content} ? @{ $m->{content} }
                     : { type => 'text', text => $m->{content} };

        if ($m->{role} eq 'system') {
            bad("messages.$i.role", 'Input should be user or assistant')
                if !$new;
            next;
        }

        add_turn(\@all, $m->{role}, @blocks);
    }

    bad('messages.0', 'first message must use the user role')
        if !@all || $all[0]{role} ne 'user';

    for my $i (0 .. $#all) {
        my ($role, @blocks) = ($all[$i]{role}, @{ $all[$i]{parts} });
        my $path = "messages.$i";
        my %open = map { $_->{id} => 1 }
                   grep { $i && $_->{type} eq 'tool_use' }
                        $i ? @{ $all[$i - 1]{parts} } : ();
        my @parts;
        my $other;

        for (@blocks) {
            my $type = $_->{type};

            if ($type eq 'tool_result') {
                bad($path, 'tool_result after other content') if $other;
                bad($path, "unexpected tool_use_id $_->{tool_use_id}")
                    if !delete $open{$_->{tool_use_id}};

                my $c = $call{$_->{tool_use_id}};
                push @parts, {
                    type => 'result', id => $_->{tool_use_id},
                    name => $c->{name}, args => $c->{input},
                    text => ($_->{is_error} ? 'Error: ' : '')
                            . flat($_->{content})
                };

                # as the other dialect has to put them
                push @parts, map { image_of($_) }
                             grep { $_->{type} eq 'image' }
                             ref $_->{content} ? @{ $_->{content} } : ();
                next;
            }

            $other = 1;

            if ($type eq 'tool_use') {
                bad("$path.tool_use", "ids must be unique: $_->{id}")
                    if $seen{$_->{id}}++;
                $call{$_->{id}} = $_;
                push @parts, { type => 'call', id => $_->{id},
                               name => $_->{name}, args => $_->{input} };

            } elsif ($type eq 'text') {
                push @parts, { type => 'text', text => $_->{text} };

            } elsif ($type eq 'image') {
                push @parts, image_of($_);

            } elsif ($type eq 'thinking') {
                bad("$path.thinking", 'Invalid `signature`')
                    if $_->{signature} ne sign($_->{thinking});
                push @parts, { type => 'thinking', text => $_->{thinking} };

            } else {
                push @parts, { type => $type };
            }
        }

        bad($path, 'no tool_result for ' . join ', ', sort keys %open)
            if %open;

        # those of a turn that is going on
        bad($path, 'Expected `thinking`, but found `tool_use`')
            if $thinking && !$new && $i == $#all - 1
               && (grep { $_->{type} eq 'tool_use' } @blocks)
               && $blocks[0]{type} !~ /thinking$/;

        if ($i == $#all && $role eq 'assistant') {
            bad($path, 'this model does not support prefill') if $new;
            bad($path, 'prefill with thinking') if $thinking;
            bad($path, 'final assistant content ends with white space')
                if $blocks[-1]{type} eq 'text'
                   && $blocks[-1]{text} =~ /\s$/;
            bad($path, 'no tool_result')
                if grep { $_->{type} eq 'tool_use' } @blocks;
        }

        push @turns, { role => $role, parts => \@parts };
    }

    return \@turns;
}

sub image_of {
    my $source = $_[0]{source};

    if ($source->{type} eq 'base64') {
        picture($source->{media_type}, $source->{data}, 'messages.image');
        return { type => 'image', mime => $source->{media_type},
                 sha => sha1_hex($source->{data}) };
    }

    return { type => 'image', url => $source->{url} };
}

sub anthropic_reply {
    my ($req, $a) = @_;
    my $body = $req->{json};
    my %finish = (stop => 'end_turn', sequence => 'stop_sequence',
                  length => 'max_tokens', tool => 'tool_use');

    my @content;

    push @content, { type => 'thinking', thinking => $a->{thinking},
                     signature => sign($a->{thinking}) }
        if defined $a->{thinking};
    push @content, { type => 'text', text => $a->{text} } if $a->{text} ne '';

    push @content, { type => 'tool_use', id => call_id($req, $_, 'toolu_'),
                     name => $a->{calls}[$_]{name},
                     input => $a->{calls}[$_]{args} }
        for 0 .. $#{ $a->{calls} };

    my $usage = {
        input_tokens => $usage{fresh}, output_tokens => $a->{out},
        cache_read_input_tokens => $usage{read},
        cache_creation_input_tokens => $usage{written},
        cache_creation => { ephemeral_5m_input_tokens => $usage{written},
                            ephemeral_1h_input_tokens => 0 },
        output_tokens_details => { thinking_tokens => $a->{thought} },
        service_tier => 'standard', server_tool_use => undef
    };

    my %stop = (stop_reason => $finish{$a->{finish}} // $a->{finish},
                stop_sequence => $a->{sequence},
                stop_details => $a->{finish} eq 'refusal'
                                ? { type => 'refusal', category => undef,
                                    explanation => undef } : undef);

    my %message = (id => sprintf('msg_%08x', $req->{n}), type => 'message',
                   role => 'assistant', model => $body->{model},
                   container => undef);

    return json_script(200, { %message, %stop, content => \@content,
                              usage => $usage }, anthropic_headers($req))
        if !$body->{stream};

    my @events;

    my $add = sub {
        my ($type, %more) = @_;
        push @events, "event: $type\ndata: "
                      . encode({ type => $type, %more }) . "\n\n";
    };

    $add->('message_start', message => {
        %message, content => [], stop_reason => undef, stop_sequence => undef,
        stop_details => undef, usage => { %$usage, output_tokens => 1,
                                          output_tokens_details => undef }
    });

    for my $i (0 .. $#content) {
        my $block = $content[$i];
        my ($start, @deltas);

        if ($block->{type} eq 'text') {
            $start = { type => 'text', text => '' };
            @deltas = map { { type => 'text_delta', text => $_ } }
                      AI::Provider::words($block->{text});

        } elsif ($block->{type} eq 'thinking') {
            $start = { type => 'thinking', thinking => '', signature => '' };
            @deltas = ((map { { type => 'thinking_delta', thinking => $_ } }
                        AI::Provider::words($block->{thinking})),
                       { type => 'signature_delta',
                         signature => $block->{signature} });

        } else {
            $start = { %$block, input => {} };
            @deltas = map { { type => 'input_json_delta',
                              partial_json => $_ } }
                      '', split_text($json->encode($block->{input}), 4);
        }

        $add->('content_block_start', index => $i, content_block => $start);
        $add->('ping') if $i == 0;
        $add->('content_block_delta', index => $i, delta => $_) for @deltas;

        if ($a->{broken}) {
            push @events, "event: error\ndata: "
                . encode({ type => 'error', error => {
                      type => 'overloaded_error',
                      message => 'Overloaded' } }) . "\n\n"
                if $a->{broken} eq 'error';
            return cut_off(\@events, $a, anthropic_headers($req));
        }

        $add->('content_block_stop', index => $i);
    }

    $add->('message_delta', delta => \%stop, usage => {
        map { $_ => $usage->{$_} } grep { /_tokens/ } keys %$usage
    });
    $add->('message_stop');

    return sse_script(\@events, headers => [ anthropic_headers($req) ],
                      interval => $a->{slow});
}


# what is answered, in no dialect

sub words_of { my @w = split ' ', $_[0] // ''; return @w }

sub answer {
    my ($ask) = @_;
    my $turn = $ask->{turns}[-1];
    my @parts = $turn ? @{ $turn->{parts} } : ();
    my @results = grep { $_->{type} eq 'result' } @parts;
    my ($said) = reverse map { $_->{text} }
                         grep { $_->{type} eq 'text' } @parts;
    my %a = (text => '', calls => [], finish => 'stop');

    $said //= '';

    if ($said =~ s/^Think and //) {
        $a{thinking} = 'Let me see.';
    } elsif ($said =~ /^Think about (.*)/s) {
        $a{thinking} = "About $1 I think this.";
        $a{text} = "It is $1.";
    }

    delete $a{thinking} if !$ask->{reasons};

    my $choice = $ask->{choice} // 'auto';

    if ($said =~ /^Weather in (.*?)(?: and (.*))?$/s) {
        my @cities = grep { defined } $1, $2;

        if ($choice eq 'none' || !grep { /^get_weather$/ } @{ $ask->{tools} })
        {
            $a{text} = 'I cannot look.';
        } else {
            @cities = ($cities[0])
                if defined $ask->{parallel} && !$ask->{parallel};
            $a{text} = 'Let me look.';
            $a{calls} = [ map { { name => 'get_weather',
                                  args => { city => $_ } } } @cities ];
        }

    } elsif ($choice =~ /^=(.*)/) {
        $a{calls} = [ { name => $1, args => {} } ];

    } elsif ($choice eq 'required') {
        $a{calls} = [ { name => $ask->{tools}[0], args => {} } ];

    } elsif (@results) {
        $a{text} = join '; ', map {
            "$_->{name}(" . $json->encode($_->{args}) . ")=$_->{text}"
        } @results;
        $a{text} .= "; and: $said" if $said ne '';

    } elsif ($said =~ /^Say (.*)/s) {
        $a{text} = $1;

    } elsif ($said =~ /^Describe/) {
        $a{text} = $json->encode(describe($ask));

    } elsif ($said =~ /^Count to (\d+)/) {
        $a{text} = join ' ', 1 .. $1;

    } elsif ($said =~ /^Give JSON/ && $ask->{schema}) {
        $a{text} = $json->encode(instance($ask->{schema}));

    } elsif ($said =~ /^Give JSON/) {
        $a{text} = '{"ok":true}';

    } elsif ($said =~ /^Refuse/) {
        @a{qw(text finish)} = ('I cannot help with that.', 'refusal');

    } elsif ($said =~ /^Fail (\d+)/) {
        die { status => $1 + 0, path => 'messages',
              message => "told to fail with $1" };

    } elsif ($said =~ /^(?:Break|Cut)/) {
        $a{text} = 'Half of it';
        $a{broken} = $said =~ /^Break/ ? 'error' : 'cut';

    } elsif ($said =~ /^Slow/) {
        @a{qw(text slow)} = ('one two three four five', 60);

    } elsif ($a{text} eq '') {
        $a{text} = "You said: $said";
    }

    for my $stop ($said =~ /^Describe/ ? () : @{ $ask->{stop} }) {
        my $at = index $a{text}, $stop;
        next if $at < 0;
        $a{text} = substr $a{text}, 0, $at;
        @a{qw(finish sequence)} = ('sequence', $stop);
    }

    $a{thought} = () = words_of($a{thinking});

    # enough of them for what the tests think
    if (defined $ask->{max} && $said !~ /^Describe/
        && words_of($a{text}) > $ask->{max})
    {
        my @w = AI::Provider::words($a{text});
        $a{text} = join '', @w[0 .. $ask->{max} - 1];
        @a{qw(finish sequence)} = ('length', undef);
    }

    $a{out} = $a{thought} + words_of($a{text}) + 5 * @{ $a{calls} };
    $a{finish} = 'tool' if @{ $a{calls} };

    return \%a;
}

# system, turns as "role: part part", where a part is its text, <image ...>,
# <call ...>, <result ...> or <thinking ...>; and what was asked for

sub describe {
    my ($ask) = @_;
    my @turns;

    for my $turn (@{ $ask->{turns} }) {
        push @turns, "$turn->{role}: " . join ' ', map {
            $_->{type} eq 'text'       ? $_->{text}
            : $_->{type} eq 'thinking' ? "<thinking $_->{text}>"
            : $_->{type} eq 'image'    ? '<image '
                . ($_->{url} // "$_->{mime} $_->{sha}") . '>'
            : $_->{type} eq 'call'     ? "<call $_->{id} $_->{name} "
                . $json->encode($_->{args}) . '>'
            : $_->{type} eq 'result'   ? "<result $_->{id} $_->{text}>"
            : "<$_->{type}>"
        } @{ $turn->{parts} };
    }

    my %d = map { $_ => $ask->{$_} } grep { defined $ask->{$_} }
            qw(choice parallel max temperature top_p user effort thinking
               format);

    return { %d, system => $ask->{system}, turns => \@turns,
             tools => $ask->{tools}, stop => $ask->{stop} };
}

# the smallest that fits

sub instance {
    my ($s, $name, $defs) = @_;
    my $type = $s->{type} // 'string';

    $defs //= $s->{'$defs'} // $s->{definitions} // {};

    return instance($defs->{$1}, $name, $defs)
        if ($s->{'$ref'} // '') =~ m{^#/(?:\$defs|definitions)/(.*)};
    return $s->{enum}[0] if $s->{enum};
    return $s->{const} if exists $s->{const};
    return instance($s->{anyOf}[0], $name, $defs) if $s->{anyOf};

    ($type) = @$type if ref $type;

    return { map { $_ => instance($s->{properties}{$_}, $_, $defs) }
             keys %{ $s->{properties} // {} } } if $type eq 'object';
    return [ instance($s->{items}, $name, $defs) ] if $type eq 'array';
    return 7 if $type eq 'integer';
    return 1.5 if $type eq 'number';
    return JSON::PP::true if $type eq 'boolean';
    return undef if $type eq 'null';
    return 'a ' . ($name // 'text');
}

1;
