package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// waitPeriod is how often --wait looks how far a procedure is.
const waitPeriod = 250 * time.Millisecond

func (a *app) procedureCommand() *cobra.Command {
	cmd := group("procedure", "Changes that take several steps: migrations, drains, removals",
		a.procedureListCommand(), a.procedureGetCommand(), a.procedureCancelCommand())
	cmd.Aliases = []string{"procedures"}
	return cmd
}

func (a *app) procedureListCommand() *cobra.Command {
	req := &metasrvpb.ListProceduresRequest{}
	region := ""
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Args: noArgs(),
		Short: "List the procedures that run",
		Long: "Lists the procedures that run; with --all also those that have ended, of which the last 1,000 are remembered.\n\n" +
			"EXPECTED is when one should end, as far as that can be guessed.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if region != "" {
				id, err := parseRegion(region)
				if err != nil {
					return err
				}
				req.RegionId = id
			}
			req.Header = a.header()
			return a.connected(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				resp, err := c.Cluster().ListProcedures(ctx, req)
				if err != nil {
					return err
				}
				return a.show(resp, func(w io.Writer) { procedureTable(w, resp.Procedures) })
			})
		},
	}
	cmd.Flags().BoolVar(&req.Ended, "all", false, "also those that have ended")
	cmd.Flags().Uint64Var(&req.NodeId, "node", 0, "`ID` only those that concern this node")
	cmd.Flags().StringVar(&region, "region", "", "`REGION` only those that concern this region")
	cmd.Flags().Uint64Var(&req.ParentId, "parent", 0, "`ID` only the parts of this procedure")
	return cmd
}

func procedureTable(w io.Writer, list []*metasrvpb.Procedure) {
	g := newGrid(w, "PROCEDURE", "KIND", "WHAT", "STATE", "STEP", "PROGRESS", "AGE", "EXPECTED", "PART OF")
	for _, p := range list {
		part := none
		if p.ParentId != 0 {
			part = number(p.ParentId)
		}
		g.row(number(p.ProcedureId), procedureKind(p), procedureSubject(p), procedureState(p), procedureStep(p),
			procedureProgress(p), procedureAge(p), procedureExpected(p), part)
	}
	g.end()
}

func procedureKind(p *metasrvpb.Procedure) string { return phrase(p.Kind, "PROCEDURE_KIND_") }

func procedureState(p *metasrvpb.Procedure) string { return phrase(p.State, "PROCEDURE_STATE_") }

func procedureStep(p *metasrvpb.Procedure) string { return phrase(p.Step, "PROCEDURE_STEP_") }

// procedureSubject says what a procedure works on.
func procedureSubject(p *metasrvpb.Procedure) string {
	var s string
	switch {
	case p.RegionId != 0:
		s = "region " + metasrv.RegionID(p.RegionId).String()
	case p.Replicas != 0 && p.TableName != nil:
		return fmt.Sprintf("table %s: %d replicas", tableName(p.TableName), p.Replicas)
	case p.Replicas != 0:
		return fmt.Sprintf("a table: %d replicas", p.Replicas)
	default:
		return "node " + number(p.NodeId)
	}
	if p.NodeId != 0 {
		s += " from node " + number(p.NodeId)
	}
	if p.TargetNodeId != 0 {
		s += " to node " + number(p.TargetNodeId)
	}
	return s
}

func hasEnded(p *metasrvpb.Procedure) bool {
	return p.State != metasrvpb.ProcedureState_PROCEDURE_STATE_RUNNING && p.State != metasrvpb.ProcedureState_PROCEDURE_STATE_ROLLING_BACK
}

func procedureProgress(p *metasrvpb.Procedure) string {
	if hasEnded(p) && p.State != metasrvpb.ProcedureState_PROCEDURE_STATE_DONE {
		return none
	}
	return fmt.Sprintf("%d%%", p.ProgressPermille/10)
}

func procedureAge(p *metasrvpb.Procedure) string {
	if hasEnded(p) {
		return none
	}
	return span(millis(p.AgeMs))
}

func procedureExpected(p *metasrvpb.Procedure) string {
	if hasEnded(p) || p.ExpectedEndMs == 0 {
		return none
	}
	return "in " + span(millis(p.ExpectedEndMs))
}

func (a *app) procedureGetCommand() *cobra.Command {
	wait := false
	cmd := &cobra.Command{
		Use: "get ID", Args: args(cobra.ExactArgs(1), "the id of a procedure"),
		Short: "Show one procedure: what it does, what it waits for, what went wrong",
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseProcedure(args[0])
			if err != nil {
				return err
			}
			if wait {
				return a.await(cmd.Context(), id)
			}
			return a.connected(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				resp, err := c.Cluster().GetProcedure(ctx, &metasrvpb.GetProcedureRequest{Header: a.header(), ProcedureId: id})
				if err != nil {
					return err
				}
				return a.show(resp, func(w io.Writer) { procedureDetails(w, resp.Procedure) })
			})
		},
	}
	waitFlag(cmd, &wait)
	return cmd
}

func procedureDetails(w io.Writer, p *metasrvpb.Procedure) {
	g := newGrid(w)
	g.row("Procedure", number(p.ProcedureId))
	g.row("Kind", procedureKind(p))
	g.row("What", procedureSubject(p))
	if p.TableName != nil {
		g.row("Table", tableName(p.TableName))
	}
	g.row("State", procedureState(p))
	g.row("Step", procedureStep(p))
	if !hasEnded(p) {
		g.row("Waits for", p.WaitingFor)
		g.row("Progress", procedureProgress(p))
		g.row("Expected end", procedureExpected(p))
		g.row("Age", span(millis(p.AgeMs)))
		g.row("In this step", span(millis(p.StepAgeMs)))
		if p.StepTimeoutMs > 0 {
			g.row("Given up in", span(millis(p.StepTimeoutMs)))
		}
	}
	g.row("Reason", p.Reason)
	g.row("Last problem", p.Error)
	if p.Attempts > 0 {
		g.row("Planned anew", plural(uint64(p.Attempts), "time"))
	}
	if p.ParentId != 0 {
		g.row("Part of", number(p.ParentId))
	}
	g.row("Started", wallClock(p.StartedAtMs))
	if hasEnded(p) {
		g.row("Ended", wallClock(p.EndedAtMs))
	}
	g.end()
}

func wallClock(ms int64) string {
	if ms == 0 {
		return none
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04:05 UTC")
}

func (a *app) procedureCancelCommand() *cobra.Command {
	req := &metasrvpb.CancelProcedureRequest{}
	cmd := &cobra.Command{
		Use: "cancel ID", Args: args(cobra.ExactArgs(1), "the id of a procedure"),
		Short: "Have a procedure take back what it did",
		Long: `Has a procedure take back what it did: a replica that it added is removed again, a region leader that it told to stop
leads again. Its parts are cancelled too; those that have ended stay as they are.

When a region has its new leader, there is no way back: the procedure then ends within seconds.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseProcedure(args[0])
			if err != nil {
				return err
			}
			req.ProcedureId = id
			return a.connected(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				resp, err := c.Cluster().CancelProcedure(ctx, req)
				if err != nil {
					return err
				}
				return a.show(resp, func(w io.Writer) {
					fmt.Fprintf(w, "procedure %d takes back what it did; follow it with: metactl procedure get %d --wait\n", id, id)
				})
			})
		},
	}
	cmd.Flags().StringVar(&req.Reason, "reason", "", "`TEXT` why, shown with the procedure")
	return cmd
}

func parseProcedure(s string) (uint64, error) {
	id, err := strconv.ParseUint(s, 10, 64)
	if err != nil || id == 0 {
		return 0, usagef("%q is not the id of a procedure, which is a number", s)
	}
	return id, nil
}

// starting is a command that starts a procedure, with the flags that all of them have.
type starting struct {
	reason string
	wait   bool
}

// startCommand adds to cmd the flags of commands that start a procedure, and runs the request that request returns.
func (a *app) startCommand(cmd *cobra.Command, request func(args []string) (*metasrvpb.StartProcedureRequest, error)) *cobra.Command {
	s := &starting{}
	cmd.Flags().StringVar(&s.reason, "reason", "", "`TEXT` why, shown with the procedure")
	waitFlag(cmd, &s.wait)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req, err := request(args)
		if err != nil {
			return err
		}
		req.Reason = s.reason
		return a.start(cmd.Context(), req, s.wait)
	}
	return cmd
}

func waitFlag(cmd *cobra.Command, wait *bool) {
	cmd.Flags().BoolVar(wait, "wait", false, "wait until it has ended; fails if it was not done")
}

func (a *app) start(ctx context.Context, req *metasrvpb.StartProcedureRequest, wait bool) error {
	var id uint64
	err := a.connected(ctx, func(ctx context.Context, c *client.Client) error {
		resp, err := c.Cluster().StartProcedure(ctx, req)
		if err != nil {
			return err
		}
		p := resp.GetProcedure()
		id = p.GetProcedureId()
		if wait && a.format == formatJSON {
			return nil
		}
		return a.show(resp, func(w io.Writer) {
			fmt.Fprintf(w, "procedure %d (%s) has started: %s\n", id, procedureKind(p), procedureSubject(p))
			if !wait {
				fmt.Fprintf(w, "follow it with: metactl procedure get %d --wait\n", id)
			}
		})
	})
	if err != nil || !wait {
		return err
	}
	return a.await(ctx, id)
}

// await follows a procedure to its end. Each look has the time that a command has.
func (a *app) await(ctx context.Context, id uint64) error {
	said := ""
	for {
		var p *metasrvpb.Procedure
		err := a.connected(ctx, func(ctx context.Context, c *client.Client) error {
			resp, err := c.Cluster().GetProcedure(ctx, &metasrvpb.GetProcedureRequest{ProcedureId: id})
			p = resp.GetProcedure()
			if err != nil || a.format != formatJSON || !hasEnded(p) {
				return err
			}
			return a.show(resp, nil)
		})
		if err != nil {
			return err
		}
		if line := procedureLine(p); line != said && a.format != formatJSON {
			said = line
			fmt.Fprintln(a.out, line)
		}
		if hasEnded(p) {
			return endError(p)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(waitPeriod):
		}
	}
}

// procedureLine says in one line how far a procedure is.
func procedureLine(p *metasrvpb.Procedure) string {
	if hasEnded(p) {
		return fmt.Sprintf("procedure %d: %s", p.ProcedureId, procedureState(p))
	}
	line := fmt.Sprintf("procedure %d: %s", p.ProcedureId, procedureStep(p))
	if p.State == metasrvpb.ProcedureState_PROCEDURE_STATE_ROLLING_BACK {
		line = fmt.Sprintf("procedure %d: takes back what it did: %s", p.ProcedureId, p.Error)
	}
	if p.WaitingFor != "" {
		line += ", waits for " + p.WaitingFor
	}
	return line
}

func endError(p *metasrvpb.Procedure) error {
	if p.State == metasrvpb.ProcedureState_PROCEDURE_STATE_DONE {
		return nil
	}
	return fmt.Errorf("procedure %d was not done, and what it did was taken back: %s", p.ProcedureId, cmp.Or(p.Error, "cancelled"))
}
