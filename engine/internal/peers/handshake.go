package peers

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"distmsg/codec"
	"distmsg/engine/internal/keyring"
)

// A handshake proves to both nodes that the other one knows the cluster's secret. Nothing of the
// secret goes over the wire. Each side's proof is a MAC over its role, both nodes, both
// incarnations, both nonces, the version and the name of the cluster. Nobody can replay a proof,
// because the nonces are fresh. Nobody can reflect a proof, because the roles differ.

// Self is what a node says of itself to other nodes. It is static, and any goroutine may use it.
type Self struct {
	Node       string
	Cluster    string
	Secrets    *keyring.Ring // the cluster's
	MinVersion uint64        // lowest and highest that this node speaks with others
	MaxVersion uint64
	// Identity returns the present settings on which the two nodes must agree. Any goroutine calls
	// it.
	Identity func() codec.PeerIdentity
	// ClientAddr returns where clients connect to this node. Any goroutine calls it.
	ClientAddr func() string
}

// Hello returns the frame with which a node of that name begins a handshake.
func (s *Self) Hello(node string, incarnation uint64) codec.PeerHello {
	return codec.PeerHello{
		MinVersion: s.MinVersion, MaxVersion: s.MaxVersion, Cluster: []byte(s.Cluster),
		Node: []byte(node), Incarnation: incarnation, Nonce: random(codec.NonceLen),
		PeerIdentity: s.Identity(),
	}
}

// Role is a node's part in a handshake. It is part of the node's proof.
type Role string

// The roles.
const (
	Dialled  Role = "dialled"
	Accepted Role = "accepted"
)

// Proof returns the proof that a node knows one of the cluster's secrets.
func Proof(secret []byte, role Role, transcript []byte) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("distmsg peer " + role + "\x00"))
	mac.Write(transcript)
	return mac.Sum(nil)
}

// Proves returns the secret of the cluster that a proof matches. It returns nil if there is none.
func (s *Self) Proves(proof []byte, role Role, transcript []byte) (secret []byte) {
	for _, secret := range s.Secrets.All() {
		if hmac.Equal(proof, Proof(secret, role, transcript)) {
			return secret
		}
	}
	return nil
}

// Peer is the node at the other end of a link, as it names itself.
type Peer struct {
	Node        string
	Incarnation uint64
	Identity    codec.PeerIdentity
}

// phase says how far a handshake has come. docs/peer-protocol.md has the same states.
type phase uint8

const (
	isNew      phase = iota // this node accepted, and waits for the hello
	challenged              // this node accepted, has sent its challenge and waits for the proof
	greeting                // this node dialled, has sent its hello and waits for the challenge
	proved                  // the other node has proved itself; see ToSupersede
	// this node dialled, has sent its proof and waits to hear that it is taken
	proving
	open
	over
)

// expected returns the kind of frame that a handshake in this phase accepts next. An error may
// always come.
func (p phase) expected() (kind codec.Kind, ok bool) {
	switch p {
	case isNew:
		return codec.KindPeerHello, true
	case challenged:
		return codec.KindPeerProof, true
	case greeting:
		return codec.KindPeerChallenge, true
	case proving:
		return codec.KindPeerReady, true
	}
	return 0, false
}

// Verdict says what happens to a link.
type Verdict uint8

// The verdicts.
const (
	// ToWait means that the other node has to send the next frame.
	ToWait Verdict = iota
	// ToSupersede means that the other node has proved itself. The caller decides with
	// Incumbent.Contest between it and an older link to the same node, if there is one, and then
	// calls Proceed.
	ToSupersede
	// ToOpen means that the link is open.
	ToOpen
	// ToRefuse means that the caller closes the link for Step.Fault.
	ToRefuse
	// ToEnd means that the other node has ended the link.
	ToEnd
)

// Note is what the node must notice in a step, besides the verdict on the link.
type Note uint8

// The notes.
const (
	NoNote           Note = iota
	NoteSameName          // the other node has this node's name, or says so: look who has it
	NoteOtherCluster      // the other node belongs to another cluster
	NoteBadSecret         // the other node does not know the cluster's secret
	NoteDiffers           // the two nodes must not be linked: Handshake.Differs says why
	NoteNameTaken         // another node has the other one's name, and stays
	NoteMustEnd           // another node has this node's name, and this node ends
	NoteTurnedAway        // the other node refuses the link: Step.Fault and Step.Detail say why
)

// Step is what a link does next, in the order of the fields.
type Step struct {
	Proved  bool // the other node has just proved that it knows the secret
	Note    Note
	Send    []byte // frames, to be sent first
	Verdict Verdict
	Fault   codec.Fault
	Kind    codec.Kind // the frame that the fault is about; 0 if it is about none
	Detail  string
	Where   string // of NoteNameTaken: the address of the node that stays
}

// Handshake is one side of the handshake of a link. It does no I/O and has no clock. Its owner
// passes frames in and does what the steps say. It belongs to the loop of the link and lives as
// long as the link.
type Handshake struct {
	self        *Self
	role        Role
	incarnation uint64 // this node's
	phase       phase
	peer        Peer
	differs     string          // what the two do not agree on
	hello       codec.PeerHello // ours, if we dialled
	secret      []byte          // which one the other side knows, if we dialled
	transcript  []byte
}

// Accept begins the handshake with a node that has connected to this one. incarnation is this
// node's.
func Accept(self *Self, incarnation uint64) *Handshake {
	return &Handshake{self: self, role: Accepted, incarnation: incarnation, phase: isNew}
}

// Dial begins the handshake with a node to which this one has connected. incarnation is this
// node's.
func Dial(self *Self, incarnation uint64, node string) (*Handshake, Step) {
	h := &Handshake{self: self, role: Dialled, incarnation: incarnation, phase: greeting, peer: Peer{Node: node}}
	h.hello = self.Hello(self.Node, incarnation)
	return h, Step{Send: codec.AppendPeerHello(nil, &h.hello)}
}

// Peer returns what is known of the other node.
func (h *Handshake) Peer() *Peer { return &h.peer }

// Differs names the settings in which the two nodes differ. It returns "" if they agree.
func (h *Handshake) Differs() string { return h.differs }

// proven reports whether the other node has proved that it knows the secret.
func (h *Handshake) proven() bool { return h.phase == proved || h.phase == proving || h.phase == open }

// Handle handles a frame that has come. It does not keep body.
func (h *Handshake) Handle(kind codec.Kind, body []byte) Step {
	expected, ok := h.phase.expected()
	switch {
	case kind == codec.KindError:
		return h.PeerError(body)
	case kind == codec.KindHello:
		return h.refuseFrame(codec.FaultUnexpectedKind, kind,
			"this address is for other nodes; clients connect to "+h.self.ClientAddr())
	case kind != expected || !ok:
		return h.refuseFrame(codec.FaultUnexpectedKind, kind, "this kind is not allowed at this point of the handshake between nodes")
	}
	var step Step
	var err error
	switch kind {
	case codec.KindPeerHello:
		step, err = h.handleHello(body)
	case codec.KindPeerProof:
		step, err = h.handleProof(body)
	case codec.KindPeerChallenge:
		step, err = h.handleChallenge(body)
	case codec.KindPeerReady:
		step, err = h.handleReady(body)
	}
	if err != nil {
		return h.malformed(err, kind)
	}
	return step
}

// handleHello checks who has connected, and challenges it.
func (h *Handshake) handleHello(body []byte) (Step, error) {
	var f codec.PeerHello
	if err := codec.DecodePeerHello(body, &f); err != nil {
		return Step{}, err
	}
	self := h.self
	version := min(f.MaxVersion, self.MaxVersion)
	switch {
	case string(f.Cluster) != self.Cluster:
		h.peer.Node = string(f.Node)
		step := h.refuse(codec.FaultUnauthenticated,
			fmt.Sprintf("this node belongs to cluster %q, not %q", self.Cluster, f.Cluster))
		step.Note = NoteOtherCluster
		return step, nil
	case version < f.MinVersion || version < self.MinVersion:
		return h.refuse(codec.FaultBadVersion,
			fmt.Sprintf("this node speaks versions %d to %d with its peers, the other %d to %d",
				self.MinVersion, self.MaxVersion, f.MinVersion, f.MaxVersion)), nil
	case string(f.Node) == self.Node:
		step := h.refuse(codec.FaultUnauthenticated,
			fmt.Sprintf("both nodes are called %q: give one of them another ID", f.Node))
		step.Note = NoteSameName
		return step, nil
	}
	h.peer = Peer{Node: string(f.Node), Incarnation: f.Incarnation, Identity: f.PeerIdentity}
	challenge := codec.PeerChallenge{
		Version: version, Node: []byte(self.Node), Incarnation: h.incarnation, Nonce: random(codec.NonceLen),
		PeerIdentity: self.Identity(),
	}
	h.differs = disagreement(&challenge.PeerIdentity, &h.peer.Identity)
	h.transcript = Transcript(&f, &challenge)
	challenge.Proof = Proof(self.Secrets.First(), Accepted, h.transcript)
	h.phase = challenged
	return Step{Send: codec.AppendPeerChallenge(nil, &challenge)}, nil
}

// handleChallenge checks that the dialled node knows the secret and is the node that was meant.
func (h *Handshake) handleChallenge(body []byte) (Step, error) {
	var f codec.PeerChallenge
	if err := codec.DecodePeerChallenge(body, &f); err != nil {
		return Step{}, err
	}
	if f.Version < h.self.MinVersion || f.Version > h.self.MaxVersion {
		return h.refuse(codec.FaultBadVersion, fmt.Sprintf("version %d was not offered", f.Version)), nil
	}
	h.transcript = Transcript(&h.hello, &f)
	if h.secret = h.self.Proves(f.Proof, Accepted, h.transcript); h.secret == nil {
		return h.badSecret(), nil
	}
	if string(f.Node) != h.peer.Node {
		return h.refuse(codec.FaultUnauthenticated,
			fmt.Sprintf("expected node %q at this address, but %q answered", h.peer.Node, f.Node)), nil
	}
	h.peer.Incarnation, h.peer.Identity = f.Incarnation, f.PeerIdentity
	if h.differs = disagreement(&h.hello.PeerIdentity, &h.peer.Identity); h.differs != "" {
		step := h.prove() // so that the other node believes what it finds, and refuses
		step.Proved, step.Note = true, NoteDiffers
		return step, nil
	}
	h.phase = proved
	return Step{Proved: true, Verdict: ToSupersede}, nil
}

// prove sends this node's proof.
func (h *Handshake) prove() Step {
	h.phase = proving
	return Step{Send: codec.AppendPeerProof(nil, Proof(h.secret, Dialled, h.transcript))}
}

// handleProof checks that the node which has connected knows the secret.
func (h *Handshake) handleProof(body []byte) (Step, error) {
	proof, err := codec.DecodePeerProof(body)
	if err != nil {
		return Step{}, err
	}
	if h.self.Proves(proof, Dialled, h.transcript) == nil {
		return h.badSecret(), nil
	}
	if h.differs != "" {
		step := h.refuse(codec.FaultUnauthenticated, "the settings of the two nodes differ: "+h.differs)
		step.Proved, step.Note = true, NoteDiffers
		return step, nil
	}
	h.phase = proved
	return Step{Proved: true, Verdict: ToSupersede}, nil
}

// handleReady ends the handshake on the side that dialled.
func (h *Handshake) handleReady(body []byte) (Step, error) {
	if err := codec.DecodePeerReady(body); err != nil {
		return Step{}, err
	}
	if h.differs != "" {
		return h.refuse(codec.FaultUnauthenticated, "the settings of the two nodes differ: "+h.differs), nil
	}
	h.phase = open
	return Step{Verdict: ToOpen}, nil
}

// Proceed continues after ToSupersede. Pass RivalGone if there is no older link, and what
// Incumbent.Contest has decided otherwise; where is the address at the other end of the older link.
// Each side closes an older link before its last frame of the handshake, so what follows finds the
// way clear.
func (h *Handshake) Proceed(rival Rival, where string) Step {
	switch {
	case rival == RivalStays:
		return h.refuseName(where)
	case rival == RivalSilent || rival == RivalAsked:
		return h.refuse(codec.FaultReplaced, "another node of this name may be alive: try again")
	case h.role == Dialled:
		return h.prove()
	}
	h.phase = open
	return Step{Send: codec.AppendPeerReady(nil), Verdict: ToOpen}
}

// refuseName refuses a node whose name another one has. The node sends its own proof first, so that
// the other can trust the refusal.
func (h *Handshake) refuseName(where string) Step {
	var proof []byte
	if h.role == Dialled {
		proof = h.prove().Send
	}
	step := h.refuse(codec.FaultNameTaken, NameTaken(h.peer.Node, where))
	step.Send, step.Note, step.Where = proof, NoteNameTaken, where
	return step
}

// PeerError handles an error frame, with which the other node ends the link. It may also come when
// the link is open.
func (h *Handshake) PeerError(body []byte) Step {
	var f codec.ErrorFrame
	if err := codec.DecodeError(body, &f); err != nil {
		return h.malformed(err, codec.KindError)
	}
	step := Step{Verdict: ToEnd, Fault: f.Fault, Detail: f.Message}
	switch f.Fault {
	case codec.FaultGoingAway, codec.FaultReplaced, codec.FaultFenced: // as things go
	case codec.FaultNameTaken:
		if h.proven() { // else anybody who listens at an address could end this node
			step.Note = NoteMustEnd
		}
	default:
		if !h.proven() || h.differs == "" { // else NoteDiffers has told it
			step.Note = NoteTurnedAway
		}
	}
	h.phase = over
	return step
}

func (h *Handshake) refuse(fault codec.Fault, detail string) Step {
	return h.refuseFrame(fault, 0, detail)
}

func (h *Handshake) refuseFrame(fault codec.Fault, kind codec.Kind, detail string) Step {
	h.phase = over
	return Step{Verdict: ToRefuse, Fault: fault, Kind: kind, Detail: detail}
}

func (h *Handshake) badSecret() Step {
	step := h.refuse(codec.FaultUnauthenticated, "the proof does not match the cluster's secret")
	step.Note = NoteBadSecret
	return step
}

// malformed refuses a frame that codec cannot decode.
func (h *Handshake) malformed(err error, kind codec.Kind) Step {
	var e *codec.Error
	errors.As(err, &e) // codec has no others
	return h.refuseFrame(e.Fault, kind, e.Error())
}

// Transcript is what both proofs are about: all that the two nodes have said before. Every part
// without a fixed length has its length before it. What the nodes say of themselves beyond their
// names is part of it if both say it. An older node says nothing, and knows nothing of it.
func Transcript(hello *codec.PeerHello, challenge *codec.PeerChallenge) []byte {
	b := binary.BigEndian.AppendUint64(nil, challenge.Version)
	b = binary.BigEndian.AppendUint64(b, hello.MinVersion)
	b = binary.BigEndian.AppendUint64(b, hello.MaxVersion)
	parts := [][]byte{
		hello.Cluster, hello.Node, binary.BigEndian.AppendUint64(nil, hello.Incarnation), hello.Nonce,
		challenge.Node, binary.BigEndian.AppendUint64(nil, challenge.Incarnation), challenge.Nonce,
	}
	if hello.Since != 0 && challenge.Since != 0 {
		for _, id := range []codec.PeerIdentity{hello.PeerIdentity, challenge.PeerIdentity} {
			parts = append(parts, binary.BigEndian.AppendUint64(nil, id.Since))
			parts = append(parts, []byte{id.Flags}, binary.BigEndian.AppendUint64(nil, uint64(len(id.Settings))))
			for _, s := range id.Settings {
				parts = append(parts, []byte(s.Name), []byte(s.Value))
			}
		}
	}
	for _, part := range parts {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return b
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}
